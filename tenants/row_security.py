"""Migration operations that set rights and row-level security: least privilege, written in one way."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.migrations import RunSQL

APP_ROLE = "tokenworks_app"
SYSTEM_ROLE = "tokenworks_system"
IN_TENANT = "tenant_id = current_setting('tokenworks.tenant_id', true)"


def grant(table: str, role: str, privileges: str) -> RunSQL:
    """Grant ``privileges``, such as ``SELECT, UPDATE (revoked_at)``."""
    return RunSQL(
        f"GRANT {privileges} ON {table} TO {role}",
        reverse_sql=f"REVOKE ALL ON {table} FROM {role}",
    )


def row_security(table: str, *, app: str = IN_TENANT, app_write: str | None = None) -> Sequence[RunSQL]:
    """Enable and force row-level security; the app role sees and writes rows where the condition holds.

    ``app_write`` narrows what may be written. The system role sees all; the owner, forced too, nothing.
    """
    statements = (
        (
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
        ),
        (
            f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY",
        ),
        (
            f"CREATE POLICY app ON {table} TO {APP_ROLE} USING ({app}) WITH CHECK ({app_write or app})",
            f"DROP POLICY app ON {table}",
        ),
        (
            f"CREATE POLICY system ON {table} TO {SYSTEM_ROLE} USING (true) WITH CHECK (true)",
            f"DROP POLICY system ON {table}",
        ),
    )
    return [RunSQL(forward, reverse_sql=backward) for forward, backward in statements]


def append_only(table: str) -> RunSQL:
    """Refuse UPDATE and DELETE to everyone, the owner included: a second wall behind the missing grants."""
    return RunSQL(
        f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON {table}"
        " FOR EACH ROW EXECUTE FUNCTION tokenworks_refuse_change()",
        reverse_sql=f"DROP TRIGGER append_only ON {table}",
    )


REFUSE_CHANGE = RunSQL(
    """
    CREATE FUNCTION tokenworks_refuse_change() RETURNS trigger LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
    BEGIN
        RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP
            USING ERRCODE = 'insufficient_privilege';
    END $$
    """,
    reverse_sql="DROP FUNCTION tokenworks_refuse_change()",
)
