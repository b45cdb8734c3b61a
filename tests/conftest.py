"""Fixtures shared by all tests: real PostgreSQL and Valkey, started when a test first needs them.

``postgres_urls``    RoleUrls of owner, app and system (database not migrated by itself)
``stack``            the whole utility, running
``redis_url``        a Valkey shared by the session; ``fresh_redis_url`` empties it first
Django's own ``db``, ``transactional_db`` and ``@pytest.mark.django_db`` use the migrated database, with
aliases ``default`` and ``system`` unless the mark names others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from stack.roles import RoleUrls
from stack.running import Stack
from stack.testing import TableReset, TestServers

if TYPE_CHECKING:
    from pytest_django.plugin import DjangoDbBlocker

_SERVERS = TestServers()
_ALIASES = ["default", "system"]
os.environ.update(_SERVERS.environment())


def _needs_django(config: pytest.Config) -> bool:
    """Whether anything but the engine's tests was asked for: those neither have nor need Django."""
    here = Path(__file__).parent
    asked = [(config.invocation_params.dir / arg.split("::")[0]).resolve() for arg in config.args]
    engine = [here / "inference", here / "moe_ops"]
    alone = all(any(path.is_relative_to(folder) for folder in engine) for path in asked)
    return config.pluginmanager.hasplugin("django") and not alone


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Load settings now that their environment exists; pytest-django sets up the rest."""
    if _needs_django(config):
        os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
        from django.conf import settings

        _ = settings.DATABASES


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    _SERVERS.stop()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests that use the database both runtime aliases unless they say otherwise."""
    for item in items:
        mark = item.get_closest_marker("django_db")
        if mark is not None and len(mark.args) < 3 and "databases" not in mark.kwargs:
            item.add_marker(
                pytest.mark.django_db(*mark.args, **mark.kwargs, databases=_ALIASES), append=False
            )
        elif mark is None and {"db", "transactional_db"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.django_db(databases=_ALIASES))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole utility with real processes, serving tokenworks-nano: one for all end-to-end tests.

    A test that kills one of its processes waits until all are ready again.
    """
    running = Stack(tmp_path_factory.mktemp("stack") / "state")
    try:
        yield running.start()
    finally:
        running.remove()


@pytest.fixture(scope="session")
def postgres_urls() -> RoleUrls:
    """Connection URLs of the three roles of a real PostgreSQL."""
    return _SERVERS.postgres_urls


@pytest.fixture(scope="session")
def postgres_superuser_url(postgres_urls: RoleUrls) -> str:
    """Superuser connection to the same database: for arranging and inspecting, never for code under test."""
    return _SERVERS.superuser_url


@pytest.fixture(scope="session")
def redis_url() -> str:
    """URL of a real Valkey, empty when the session starts."""
    return _SERVERS.redis_url


@pytest.fixture
def fresh_redis_url(redis_url: str) -> str:
    """The same Valkey, emptied for this test."""
    import redis

    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    return redis_url


@pytest.fixture(scope="session")
def django_db_setup(
    django_test_environment: None, django_db_blocker: DjangoDbBlocker, postgres_superuser_url: str
) -> Iterator[None]:
    """Migrate once as the owner. Tests then see the real roles, policies and grants."""
    from django.core.management import call_command
    from django.db import connections
    from django.test import TransactionTestCase

    with django_db_blocker.unblock():
        call_command("migrate", database="owner", verbosity=0, interactive=False)
        connections["owner"].close()
    tables = TableReset(postgres_superuser_url)

    def reset(_case: object) -> None:
        tables.run()

    patch = pytest.MonkeyPatch()
    # the runtime roles own nothing, so Django's own flush after a transactional test may not truncate
    patch.setattr(TransactionTestCase, "_fixture_teardown", reset)
    yield
    patch.undo()
    tables.close()
    with django_db_blocker.unblock():
        connections.close_all()
