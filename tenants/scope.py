"""Which rows this code may see: the database role and the tenant that row-level security obeys.

The alias ``default`` is the role ``tokenworks_app``: it sees one tenant's rows, and none outside a scope.
The alias ``system`` is the role ``tokenworks_system``: meter, directory, sign-in, foundation pages.
Models are used without ``using``; the router below picks the alias of the innermost scope.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from django.db import connections, models, transaction

APP = "default"
SYSTEM = "system"
OWNER = "owner"

_alias: ContextVar[str] = ContextVar("tokenworks_alias", default=APP)
_SET = "SELECT set_config('tokenworks.tenant_id', %s, true), set_config('tokenworks.user_id', %s, true)"
_GET = (
    "SELECT coalesce(current_setting('tokenworks.tenant_id', true), ''),"
    " coalesce(current_setting('tokenworks.user_id', true), '')"
)


@contextmanager
def tenant_scope(tenant_id: str, *, user_id: str = "") -> Iterator[None]:
    """One transaction that sees and writes rows of this tenant only."""
    with _app_transaction(tenant_id, user_id):
        yield


@contextmanager
def user_scope(user_id: str) -> Iterator[None]:
    """One transaction that sees a person's own memberships and their tenants: which tenants am I in?"""
    with _app_transaction("", user_id):
        yield


@contextmanager
def system_scope() -> Iterator[None]:
    """One transaction with the system role, which sees the rows of all tenants."""
    with _use(SYSTEM), transaction.atomic(using=SYSTEM):
        yield


@contextmanager
def _app_transaction(tenant_id: str, user_id: str) -> Iterator[None]:
    connection = connections[APP]
    outer: tuple[str, str] | None = None
    nested = connection.in_atomic_block
    with _use(APP), transaction.atomic(using=APP), connection.cursor() as cursor:
        if nested:  # local settings outlive a released savepoint
            cursor.execute(_GET)
            outer = cursor.fetchone()
        cursor.execute(_SET, (tenant_id, user_id))
        yield
        if outer is not None:
            cursor.execute(_SET, outer)


@contextmanager
def _use(alias: str) -> Iterator[None]:
    token = _alias.set(alias)
    try:
        yield
    finally:
        _alias.reset(token)


@contextmanager
def nested_transaction() -> Iterator[None]:
    """A transaction, or a savepoint inside one, on the alias of the innermost scope."""
    with transaction.atomic(using=_alias.get()):
        yield


class ScopeRouter:
    """Picks the alias of the innermost scope; people and sessions always belong to the system role."""

    def db_for_read(self, model: type[models.Model], **_hints: object) -> str:
        """The alias to read ``model`` from."""
        if model._meta.label_lower in ("tenants.user", "sessions.session"):
            return SYSTEM
        return _alias.get()

    def db_for_write(self, model: type[models.Model], **hints: object) -> str:
        """The alias to write ``model`` to."""
        return self.db_for_read(model, **hints)

    def allow_relation(self, *_objects: models.Model, **_hints: object) -> bool:
        """All aliases are one database."""
        return True

    def allow_migrate(self, db: str, *_args: object, **_hints: object) -> bool:
        """Only the owner changes the schema."""
        return db == OWNER
