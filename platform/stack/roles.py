"""The database and its three roles.

========  ===========================================================================================
owner     owns database, schema and tables; runs migrations; nothing else logs in with it
app       serves tenants: owns nothing, cannot bypass row-level security
system    meter, directory, foundation pages: owns nothing, seen as itself by row-level policies
========  ===========================================================================================

They get CONNECT on the database and USAGE on schema ``public``; rights on tables are granted by migrations.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg import sql

from stack.files import secret_load

DATABASE = "tokenworks"
OWNER, APP, SYSTEM = "tokenworks_owner", "tokenworks_app", "tokenworks_system"
_ORDINARY = sql.SQL("LOGIN NOCREATEDB NOCREATEROLE")
_RESERVED = sql.SQL("NOSUPERUSER NOBYPASSRLS NOREPLICATION")  # only a superuser may even say so


@dataclass(frozen=True)
class RoleUrls:
    """Connection URLs of the three roles."""

    owner: str
    app: str
    system: str

    def environment(self) -> dict[str, str]:
        """The variables that settings read."""
        return {
            "DATABASE_URL": self.owner,
            "DATABASE_APP_URL": self.app,
            "DATABASE_SYSTEM_URL": self.system,
        }


def passwords_load(folder: Path) -> dict[str, str]:
    """Passwords of the three roles by role name, made on first use, each in a file of mode 0600."""
    return {role: secret_load(folder / role) for role in (OWNER, APP, SYSTEM)}


def role_urls(server_url: str, passwords: dict[str, str], database: str = DATABASE) -> RoleUrls:
    """URLs for the server that ``server_url`` points to, its query (such as sslmode) kept."""
    parts = urlsplit(server_url)
    host = parts.netloc.rpartition("@")[2]

    def url(role: str) -> str:
        netloc = f"{role}:{quote(passwords[role], safe='')}@{host}"
        return urlunsplit((parts.scheme, netloc, f"/{database}", parts.query, ""))

    return RoleUrls(owner=url(OWNER), app=url(APP), system=url(SYSTEM))


def roles_ensure(
    owner_superuser_url: str, passwords: dict[str, str], *, database: str = DATABASE
) -> RoleUrls:
    """Create or repair the roles and the database; safe to repeat. Returns how to connect as each.

    ``owner_superuser_url`` names a superuser, or a role with CREATEROLE and CREATEDB. Raises psycopg.Error,
    and RuntimeError for a role that exists with powers it must not have.
    """
    with psycopg.connect(owner_superuser_url, autocommit=True) as connection:
        for role, password in passwords.items():
            _role_ensure(connection, role, password)
        _database_ensure(connection, database)
    urls = role_urls(owner_superuser_url, passwords, database)
    with psycopg.connect(urls.owner, autocommit=True) as connection:
        connection.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
        connection.execute(
            sql.SQL("GRANT USAGE ON SCHEMA public TO {}, {}").format(
                sql.Identifier(APP), sql.Identifier(SYSTEM)
            )
        )
    return urls


def _role_ensure(connection: psycopg.Connection, role: str, password: str) -> None:
    known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone()
    # hashed here, so the plain password reaches neither the server nor its log
    verifier = connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    verb = sql.SQL("ALTER" if known else "CREATE")
    attributes = [_ORDINARY, _RESERVED] if _is_superuser(connection) else [_ORDINARY]
    connection.execute(
        sql.SQL("{} ROLE {} {} PASSWORD {}").format(
            verb, sql.Identifier(role), sql.SQL(" ").join(attributes), sql.Literal(verifier)
        )
    )
    powers = connection.execute(
        "SELECT rolsuper OR rolbypassrls OR rolreplication FROM pg_roles WHERE rolname = %s", (role,)
    ).fetchone()
    if powers != (False,):
        raise RuntimeError(f"role {role} has powers that only a superuser can take away; drop or alter it")


def _database_ensure(connection: psycopg.Connection, database: str) -> None:
    name, owner = sql.Identifier(database), sql.Identifier(OWNER)
    if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone():
        if not _is_superuser(connection):
            connection.execute(sql.SQL("GRANT {} TO CURRENT_USER WITH SET TRUE").format(owner))
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(name, owner))
    connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
    connection.execute(
        sql.SQL("GRANT CONNECT ON DATABASE {} TO {}, {}").format(
            name, sql.Identifier(APP), sql.Identifier(SYSTEM)
        )
    )


def _is_superuser(connection: psycopg.Connection) -> bool:
    row = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    return bool(row and row[0])
