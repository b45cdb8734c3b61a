"""What PostgreSQL says is what Redis says, and nothing published twice or late can change that."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
import redis

from core import redis_keys
from core.clock import clock
from directory import publish_account, publish_all, publish_key, publish_snapshot, unpublish_key
from directory.keys import publish_keys
from directory.snapshots import snapshot_build
from directory.watch import Watcher
from partners.models import Offer, WorkerState
from partners.services import worker_state_set
from routing.snapshot import KeyRecord, Snapshot
from tenants.models import ApiKey, Tenant
from tenants.scope import system_scope, tenant_scope
from tenants.services import api_key_revoke
from tests.directory.consortium import Consortium


def snapshot(consortium: Consortium) -> Snapshot:
    """The snapshot that gateways see."""
    raw: Any = consortium.client.get(redis_keys.SNAPSHOT)
    return msgspec.json.decode(raw, type=Snapshot)


def record(consortium: Consortium, key: ApiKey) -> KeyRecord | None:
    """The key that gateways see."""
    raw: Any = consortium.client.get(redis_keys.key_record(key.digest))
    return msgspec.json.decode(raw, type=KeyRecord) if raw else None


def account(consortium: Consortium) -> dict[str, int]:
    """The tenant's account that gateways see."""
    raw: Any = consortium.client.hgetall(redis_keys.account(consortium.tenant.id))
    return {name.decode(): int(value) for name, value in raw.items()}


def test_snapshot_has_workers_with_their_price(consortium: Consortium) -> None:
    worker = consortium.worker()
    draining = consortium.worker(state=WorkerState.DRAINING)
    consortium.worker(state=WorkerState.RETIRED)
    consortium.worker(release_digest="b" * 64)
    consortium.worker(release_slug="other")
    assert publish_snapshot()
    seen = snapshot(consortium)
    assert [(entry.worker_id, entry.state) for entry in seen.workers] == [
        (worker.id, "active"),
        (draining.id, "draining"),
    ]
    entry = seen.workers[0]
    assert (entry.partner_slug, entry.region, entry.model) == ("north", "no-1", "nano")
    price = entry.price
    assert (price.input_nano_per_mtok, price.cached_input_nano_per_mtok) == (100_000_000, 20_000_000)
    assert (price.output_nano_per_mtok, price.levy_ppm) == (300_000_000, 50_000)
    assert (seen.policy.name, seen.policy.load_weight) == ("p1", 2)
    assert [(model.name, model.release_id) for model in seen.models] == [("nano", consortium.release.id)]


def test_snapshot_version_grows_only_with_its_content(consortium: Consortium) -> None:
    consortium.worker()
    with clock.frozen(clock.now() + timedelta(seconds=10)):
        assert publish_snapshot()
        first = snapshot(consortium)
        assert not publish_snapshot()
    worker = consortium.worker()
    assert publish_snapshot()  # the clock went back: the version must not
    second = snapshot(consortium)
    assert second.version == first.version + 1
    with system_scope():
        worker_state_set(worker_id=worker.id, state=WorkerState.RETIRED)
    assert publish_snapshot()
    assert len(snapshot(consortium).workers) == 1
    consortium.client.set(redis_keys.SNAPSHOT, b'{"of": "another shape"}')
    assert publish_snapshot()
    assert len(snapshot(consortium).workers) == 1


def test_the_newest_offer_whose_time_has_come_counts(consortium: Consortium) -> None:
    consortium.worker()
    with system_scope():
        for hours, rate in ((-1, 90_000_000), (1, 50_000_000)):
            Offer.objects.create(
                partner=consortium.pool.partner,
                release_slug="nano",
                input_nano_per_mtok=rate,
                cached_input_nano_per_mtok=rate,
                output_nano_per_mtok=rate,
                effective_at=clock.now() + timedelta(hours=hours),
            )
    publish_snapshot()
    assert snapshot(consortium).workers[0].price.output_nano_per_mtok == 300_000_000
    with clock.frozen(clock.now() + timedelta(hours=2)):
        assert publish_snapshot()
        assert snapshot(consortium).workers[0].price.output_nano_per_mtok == 50_000_000


def test_keys_come_and_go(consortium: Consortium) -> None:
    key = consortium.key()
    assert publish_key(key)
    assert record(consortium, key) == KeyRecord(
        key_id=key.id,
        tenant_id=consortium.tenant.id,
        project_id=consortium.project.id,
        expires_at_ms=None,
        requests_per_minute=60,
        max_concurrency=3,
    )
    unpublish_key(key.digest)
    assert record(consortium, key) is None
    with tenant_scope(consortium.tenant.id):
        api_key_revoke(tenant_id=consortium.tenant.id, key_id=key.id, actor="usr_x")
    assert not publish_key(key)  # an object read before the revocation
    assert record(consortium, key) is None


def test_expiring_keys_are_forgotten(consortium: Consortium) -> None:
    key = consortium.key(expires_at=clock.now() + timedelta(hours=1))
    assert publish_key(key)
    seen = record(consortium, key)
    assert seen is not None
    assert seen.expires_at_ms is not None
    assert 3_600_000 < consortium.client.pttl(redis_keys.key_record(key.digest)) <= 7_200_000
    with clock.frozen(clock.now() + timedelta(hours=2)):
        assert not publish_key(key)
        assert publish_keys() == 0


def test_balance_is_published_and_never_goes_back(consortium: Consortium) -> None:
    assert publish_account(consortium.tenant.id)
    assert account(consortium) == {"credit": 1_000_000_000, "version": 1}
    assert not publish_account(consortium.tenant.id)
    key = redis_keys.account(consortium.tenant.id)
    consortium.client.hset(key, mapping={"pending": 5, "held": 6})
    consortium.topup(1)
    assert publish_account(consortium.tenant.id)
    assert account(consortium) == {"credit": 1_000_000_001, "version": 2, "pending": 5, "held": 6}
    consortium.client.hset(key, mapping={"credit": 9, "version": 3})
    assert not publish_account(consortium.tenant.id)
    assert account(consortium)["credit"] == 9


def test_a_tenant_without_money_is_known_too(consortium: Consortium) -> None:
    with system_scope():
        tenant = Tenant.objects.create(name="Poor", slug="poor")
    assert publish_account(tenant.id)
    assert consortium.client.hgetall(redis_keys.account(tenant.id)) == {b"credit": b"0", b"version": b"0"}


def test_everything_returns_after_redis_lost_it(consortium: Consortium) -> None:
    consortium.worker()
    keys = [consortium.key() for _ in range(3)]
    first = publish_all()
    consortium.client.flushall()
    watcher = Watcher()
    watcher.step()
    assert consortium.client.get(redis_keys.EPOCH) not in (None, first.encode())
    assert len(snapshot(consortium).workers) == 1
    assert all(record(consortium, key) for key in keys)
    assert account(consortium)["credit"] == 1_000_000_000
    epoch = consortium.client.get(redis_keys.EPOCH)
    watcher.step()
    assert consortium.client.get(redis_keys.EPOCH) == epoch


def test_watcher_heals_what_was_committed_and_not_published(consortium: Consortium) -> None:
    kept, revoked = consortium.key(), consortium.key()
    publish_all()
    consortium.worker()
    fresh = consortium.key()
    consortium.topup(7)
    with tenant_scope(consortium.tenant.id):
        api_key_revoke(tenant_id=consortium.tenant.id, key_id=revoked.id, actor="usr_x")
    Watcher().step()
    assert len(snapshot(consortium).workers) == 1
    assert record(consortium, fresh)
    assert record(consortium, kept)
    assert record(consortium, revoked) is None
    assert account(consortium)["credit"] == 1_000_000_007


def test_keys_of_a_closed_tenant_are_withdrawn(consortium: Consortium) -> None:
    key = consortium.key()
    publish_all()
    with system_scope():
        Tenant.objects.filter(id=consortium.tenant.id).update(is_active=False)
    assert not publish_key(key)
    assert record(consortium, key) is None


def test_nothing_is_published_before_a_charter(transactional_db: None, fresh_redis_url: str) -> None:
    with system_scope():
        assert snapshot_build() is None
    assert not publish_snapshot()
    with redis.Redis.from_url(fresh_redis_url) as client:
        assert client.get(redis_keys.SNAPSHOT) is None


@pytest.mark.parametrize("count", [0, 501])
def test_all_accounts_are_paged_through(consortium: Consortium, count: int) -> None:
    with system_scope():
        Tenant.objects.bulk_create([Tenant(name=f"T{index}", slug=f"t{index}") for index in range(count)])
    publish_all()
    assert len(consortium.client.keys("tw:acct:*")) == count + 1
