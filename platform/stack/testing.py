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


class TableReset:
    """Brings every table back to what it held after migrating, on one connection kept for the session.

    Few rows are deleted faster than many tables are truncated. Triggers and foreign keys stay silent.
    """

    def __init__(self, superuser_url: str) -> None:
        self._connection = psycopg.connect(superuser_url, autocommit=True)
        self._execute(sql.SQL("SET lock_timeout = {}").format(sql.Literal(_LOCK_TIMEOUT)))
        self._execute(sql.SQL("SET session_replication_role = replica"))
        self._tables = self._names("public")
        self._find_used = sql.SQL(" UNION ALL ").join(self._probe(table) for table in self._tables)
        self._execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(_SEED_SCHEMA)))
        self._seeded = self._used()
        for table in self._seeded:
            self._execute(sql.SQL("CREATE TABLE {} AS TABLE {}").format(_seed(table), _public(table)))

    def run(self) -> None:
        """Put everything back. Raises psycopg.errors.LockNotAvailable when a test left a transaction open."""
        with self._connection.transaction():
            for table in self._used():
                self._execute(sql.SQL("DELETE FROM {}").format(_public(table)))
            for table in self._seeded:
                self._execute(
                    sql.SQL("INSERT INTO {} OVERRIDING SYSTEM VALUE SELECT * FROM {}").format(
                        _public(table), _seed(table)
                    )
                )

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()

    def _used(self) -> list[str]:
        return [str(row[0]) for row in self._connection.execute(self._find_used).fetchall()]

    def _names(self, schema: str) -> list[str]:
        rows = self._connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s AND tablename <> 'django_migrations'",
            (schema,),
        )
        return [str(row[0]) for row in rows.fetchall()]

    @staticmethod
    def _probe(table: str) -> sql.Composed:
        probe = sql.SQL("SELECT {} WHERE EXISTS (SELECT FROM {})")
        return probe.format(sql.Literal(table), _public(table))

    def _execute(self, statement: sql.SQL | sql.Composed) -> None:
        self._connection.execute(statement)


def _public(table: str) -> sql.Identifier:
    return sql.Identifier("public", table)


def _seed(table: str) -> sql.Identifier:
    return sql.Identifier(_SEED_SCHEMA, table)
