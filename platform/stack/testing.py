"""Real servers for the test suite: ports and passwords are fixed up front, processes start on first use.

Settings read their environment when Django is set up, long before a test asks for a database; so the
environment is complete at once, while runs that need no database never start one.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from functools import cached_property
from pathlib import Path

import psycopg
from psycopg import sql

from stack.ports import free_port
from stack.roles import DATABASE, RoleUrls, passwords_load, role_urls, roles_ensure
from stack.services import EmbeddedPostgres, EmbeddedValkey

_SEED_SCHEMA = "test_seed"
_LOCK_TIMEOUT = "15s"


class TestServers:
    """One PostgreSQL and one Valkey for a test session, in a temporary folder."""

    __test__ = False  # no test class, whatever its name

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tokenworks-test-"))
        self.folder.chmod(0o711)  # the account PostgreSQL runs as must pass through
        self._postgres = EmbeddedPostgres(self.folder / "postgres", free_port(), durable=False)
        self._valkey = EmbeddedValkey(self.folder / "valkey", free_port())
        self._passwords = passwords_load(self.folder / "roles")

    def environment(self) -> dict[str, str]:
        """Every variable the project's processes read."""
        return {
            **role_urls(self._postgres.url(), self._passwords).environment(),
            "REDIS_URL": self._valkey.url,
            "TOKENWORKS_SECRET_KEY": secrets.token_hex(32),
            "TOKENWORKS_DISPATCH_SECRET": secrets.token_hex(32),
            "TOKENWORKS_STATE_DIR": str(self.folder / "state"),
            "TOKENWORKS_GATEWAY_URL": f"http://127.0.0.1:{free_port()}",
            "TOKENWORKS_CONTROL_URL": f"http://127.0.0.1:{free_port()}",
            "TOKENWORKS_METRICS_PORT": str(free_port()),
        }

    @cached_property
    def postgres_urls(self) -> RoleUrls:
        """PostgreSQL with the three roles and an empty database owned by the owner role."""
        self._postgres.start()
        return roles_ensure(self._postgres.url(), self._passwords)

    @cached_property
    def superuser_url(self) -> str:
        """The superuser's connection to the project's database."""
        _ = self.postgres_urls
        return self._postgres.url(database=DATABASE)

    @cached_property
    def redis_url(self) -> str:
        """An empty Valkey."""
        self._valkey.start()
        return self._valkey.url

    def stop(self) -> None:
        """End what was started and delete the folder."""
        for service in (self._valkey, self._postgres):
            if service.process is not None:
                service.remove()
        shutil.rmtree(self.folder)


def seed_remember(superuser_url: str) -> None:
    """Copy aside the rows that migrations made, for ``tables_reset`` to put back."""
    with psycopg.connect(superuser_url) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(_SEED_SCHEMA)))
        for table in _tables(connection):
            if connection.execute(
                sql.SQL("SELECT 1 FROM {} LIMIT 1").format(sql.Identifier(table))
            ).fetchone():
                connection.execute(
                    sql.SQL("CREATE TABLE {} AS TABLE {}").format(
                        sql.Identifier(_SEED_SCHEMA, table), sql.Identifier("public", table)
                    )
                )


def tables_reset(superuser_url: str) -> None:
    """Bring every table back to what it held after migrating; triggers and foreign keys stay silent."""
    with psycopg.connect(superuser_url) as connection:
        connection.execute(sql.SQL("SET lock_timeout = {}").format(sql.Literal(_LOCK_TIMEOUT)))
        connection.execute("SET session_replication_role = replica")
        tables = _tables(connection)
        if not tables:
            return
        names = sql.SQL(", ").join(sql.Identifier("public", table) for table in tables)
        connection.execute(sql.SQL("TRUNCATE {} CASCADE").format(names))
        for table in _tables(connection, _SEED_SCHEMA):
            connection.execute(
                sql.SQL("INSERT INTO {} OVERRIDING SYSTEM VALUE SELECT * FROM {}").format(
                    sql.Identifier("public", table), sql.Identifier(_SEED_SCHEMA, table)
                )
            )


def _tables(connection: psycopg.Connection, schema: str = "public") -> list[str]:
    rows = connection.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = %s AND tablename <> 'django_migrations'",
        (schema,),
    )
    return [str(row[0]) for row in rows.fetchall()]
