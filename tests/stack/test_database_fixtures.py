"""The shared fixtures themselves: the migrated database, its roles, and what a test leaves behind."""

from __future__ import annotations

import pytest
from django.db import connections

from stack.roles import APP, SYSTEM
from tenants.models import Tenant


@pytest.mark.django_db
def test_both_aliases_connect_as_their_own_role() -> None:
    for alias, role in (("default", APP), ("system", SYSTEM)):
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT current_user")
            assert cursor.fetchone() == (role,)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("attempt", [1, 2])
def test_committed_rows_are_gone_for_the_next_test(attempt: int) -> None:
    tenants = Tenant.objects.using("system")
    assert not tenants.exists(), f"attempt {attempt} sees rows of the one before"
    tenants.create(name="One", slug="one")
    assert tenants.count() == 1
