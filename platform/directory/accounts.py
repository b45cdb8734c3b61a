"""Balances for admission: ``credit`` and ``version`` of each tenant's ledger account."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from django.db import connections

from core import redis_keys
from directory.redis_client import redis_client
from ledger.bulk import Balance, tenant_balances
from tenants.models import Tenant
from tenants.scope import SYSTEM, system_scope

PAGE = 500
_PUBLISH = Path(__file__).with_name("accounts.lua").read_text(encoding="utf-8")
_EMPTY = Balance(balance_nano=0, version=0)


def publish_account(tenant_id: str) -> bool:
    """Publish the tenant's committed balance. False when Redis knows it, or a newer one, already."""
    return bool(_publish([tenant_id]))


def publish_accounts() -> int:
    """Publish every active tenant's balance, a page at a time. Returns how many were out of date."""
    changed, after = 0, ""
    while True:
        with system_scope():
            rows = Tenant.objects.filter(id__gt=after, is_active=True).order_by("id")
            page = list(rows.values_list("id", flat=True)[:PAGE])
        if not page:
            return changed
        changed += _publish(page)
        after = page[-1]


def _publish(tenant_ids: Sequence[str]) -> int:
    with system_scope(), connections[SYSTEM].connection.cursor() as cursor:
        balances = tenant_balances(cursor, tenant_ids)
    keys = [redis_keys.account(tenant_id) for tenant_id in tenant_ids]
    args: list[int] = []
    for tenant_id in tenant_ids:
        balance = balances.get(tenant_id, _EMPTY)
        args += (balance.balance_nano, balance.version)
    return int(redis_client().eval(_PUBLISH, len(keys), *keys, *args))
