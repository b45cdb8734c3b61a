"""The world of the console's tests, and browsers signed in to it.

A world is committed once per module, since its making takes longer than most tests: tests add to it, and
take people of their own (``world.person``) where they change what others see.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import redis
from django.test import Client, TransactionTestCase

if TYPE_CHECKING:
    from pytest_django.plugin import DjangoDbBlocker

    from tests.console.world import World


@pytest.fixture(scope="module")
def world(
    django_db_setup: None,
    django_db_blocker: DjangoDbBlocker,
    redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """Everything committed, as the processes of the real system would find it."""
    from tests.console.world import world_make  # models need Django, which starts after this file is read

    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    with django_db_blocker.unblock():
        yield world_make(tmp_path_factory.mktemp("keys"))
        # what transactional tests do when they end: every table as it was after migrating
        vars(TransactionTestCase)["_fixture_teardown"](TransactionTestCase())


@pytest.fixture
def owner_client(world: World) -> Client:
    """Signed in as the demo tenant's owner."""
    return world.client_of(world.owner)


@pytest.fixture
def admin_client(world: World) -> Client:
    """Signed in as a foundation admin without a tenant; takes the place of pytest-django's fixture."""
    return world.client_of(world.admin)
