"""What foundation admins see and do."""

from __future__ import annotations

import re

import msgspec
import pytest
import redis
from django.test import Client

from core import redis_keys
from core.money import dollars_to_nano
from ledger.selectors import tenant_balance
from routing.snapshot import WorkerLoad
from tenants.models import AuditEntry
from tenants.scope import system_scope
from tests.console.world import World

KEY = "a" * 32


def _balance(world: World) -> int:
    with system_scope():
        return tenant_balance(tenant_id=world.other_tenant.id).balance_nano


def _topup(client: Client, world: World, amount: str, key: str) -> int:
    form = {"amount": amount, "idempotency_key": key}
    return client.post(f"/console/foundation/tenants/{world.other_tenant.id}/topup", form).status_code


def test_a_topup_sent_twice_counts_once(world: World, admin_client: Client, redis_url: str) -> None:
    before = _balance(world)
    key = re.findall(
        r'name="idempotency_key" value="(\w+)"',
        admin_client.get("/console/foundation/tenants").content.decode(),
    )[0]
    assert [_topup(admin_client, world, "12.50", key) for _ in range(2)] == [302, 302]
    assert _balance(world) == before + dollars_to_nano("12.50")
    page = admin_client.get("/console/foundation/tenants").content.decode()
    assert "$12.50 added to Rival Labs." in page
    with system_scope():
        entries = AuditEntry.objects.filter(
            action="tenant.topup", tenant=world.other_tenant, data__amount_nano=dollars_to_nano("12.50")
        )
        assert [entry.actor for entry in entries] == [world.admin.id]
    with redis.Redis.from_url(redis_url) as client:
        credit = client.hget(redis_keys.account(world.other_tenant.id), "credit")
    assert credit == str(_balance(world)).encode()


@pytest.mark.parametrize("amount", ["", "0", "-1", "ten", "1e99", "NaN", "0.0000000001", "1000000.01"])
def test_a_strange_amount_moves_nothing(amount: str, world: World, admin_client: Client) -> None:
    before = _balance(world)
    assert _topup(admin_client, world, amount, KEY) == 422
    assert _balance(world) == before


def test_a_reused_key_with_another_amount_is_refused(world: World, admin_client: Client) -> None:
    assert _topup(admin_client, world, "1", KEY) == 302
    assert _topup(admin_client, world, "2", KEY) == 409


def test_pools_show_live_load_and_missing_heartbeats(
    world: World, admin_client: Client, redis_url: str
) -> None:
    worker = world.workers[0]
    load = WorkerLoad(
        worker_id=worker.id, seq=1, at_ms=1, state="ready", running=17, queued=4, max_running=64
    )
    with redis.Redis.from_url(redis_url) as client:
        client.set(redis_keys.load(worker.id), msgspec.json.encode(load), px=60_000)
        page = admin_client.get("/console/foundation/pools").content.decode()
        client.delete(redis_keys.load(worker.id))
    assert "Ready" in page
    assert '<td class="num">17</td>' in page
    assert page.count("No heartbeat") == len(world.workers) - 1


def test_registry_pages_name_partners_and_releases(world: World, admin_client: Client) -> None:
    partners = admin_client.get("/console/foundation/partners").content.decode()
    assert "Alibaba Cloud" in partners
    assert "$0.14" in partners
    releases = admin_client.get("/console/foundation/releases").content.decode()
    assert world.release.digest in releases
    assert "model.safetensors" in releases


def test_an_unknown_tenant_gets_no_money(world: World, admin_client: Client) -> None:
    response = admin_client.post("/console/foundation/tenants/ten_none/topup", {"amount": "1"})
    assert response.status_code == 404
