"""Balance, usage, top-ups, and receipts that are checked again."""

from __future__ import annotations

from typing import Any

from billing.rating import Price
from core import redis_keys
from core.clock import clock
from core.signing import SigningKey, signing_key_load
from directory.redis_client import redis_client
from ledger.selectors import balances_total_nano
from tenants.models import AuditEntry
from tenants.scope import system_scope
from tests.api.world import (
    PRICES,
    ReceiptKit,
    World,
    key_client,
    record_make,
    session_of,
)

JSON = "application/json"


def test_balance_is_grant_less_usage(world: World) -> None:
    body = key_client(world.ours.secret).get("/api/balance").json()
    left = 5_000_000_000 - world.ours.record.charge_nano
    assert body == {
        "tenant_id": world.ours.tenant.id,
        "currency": "USD",
        "balance_nano": left,
        "balance": f"${left / 1e9:.9f}".rstrip("0"),
        "version": 3,
    }


def test_usage_by_day_model_and_partner(world: World) -> None:
    client, record = key_client(world.ours.secret), world.ours.record
    keys = {"day": f"{clock.now():%Y-%m-%d}", "model": record.model, "partner": record.partner_id}
    for group, key in keys.items():
        body = client.get("/api/usage", {"group_by": group}).json()
        assert [row["key"] for row in body["data"]] == [key]
        assert body["data"][0] | {"key": "total"} == body["total"]
        assert body["total"]["charge_nano"] == record.charge_nano == record.share_nano + record.levy_nano
        assert (body["total"]["prompt_tokens"], body["total"]["cached_tokens"]) == (100, 20)
    past = client.get("/api/usage", {"from": "2020-01-01", "to": "2020-01-31"}).json()
    assert (past["start"], past["end"], past["data"], past["total"]["requests"]) == (
        "2020-01-01",
        "2020-01-31",
        [],
        0,
    )


def test_usage_that_cannot_be_asked_for(world: World) -> None:
    client = key_client(world.ours.secret)
    for query in ("group_by=tenant", "from=2026-13-01", "from=2026-02-01&to=2026-01-01", "from=2001-01-01"):
        answer = client.get(f"/api/usage?{query}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_value"), query


def _topup(world: World, key: str = "k1", **changes: str) -> Any:
    return session_of(world.admin).post(
        f"/api/tenants/{world.ours.tenant.id}/topups",
        {"amount": "12.5", "reference": "invoice 7"} | changes,
        content_type=JSON,
        headers={"Idempotency-Key": key},
    )


def test_a_topup_pays_in_once_and_gateways_know(world: World) -> None:
    first, again = _topup(world), _topup(world)
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    expected = 5_000_000_000 - world.ours.record.charge_nano + 12_500_000_000
    assert first.json()["balance_nano"] == expected
    assert redis_client().hget(redis_keys.account(world.ours.tenant.id), "credit") == str(expected).encode()
    with system_scope():
        assert balances_total_nano() == 0
        assert AuditEntry.objects.filter(action="tenant.topup").count() == 1
    conflict = _topup(world, amount="13")
    assert (conflict.status_code, conflict.headers["x-should-retry"]) == (409, "false")


def test_a_topup_needs_a_key_an_amount_and_a_tenant(world: World) -> None:
    for amount in ("0", "-1", "1e3", "0.0000000001", "", "1,5", "nan"):
        assert _topup(world, amount=amount).status_code == 422, amount
    client = session_of(world.admin)
    body = {"amount": "1", "reference": "r"}
    path = f"/api/tenants/{world.ours.tenant.id}/topups"
    missing = client.post(path, body, content_type=JSON)
    assert (missing.status_code, missing.json()["error"]["param"]) == (422, "Idempotency-Key")
    unknown = client.post(
        "/api/tenants/ten_none/topups", body, content_type=JSON, headers={"Idempotency-Key": "k"}
    )
    assert unknown.status_code == 404
    for other in (session_of(world.ours.owner), key_client(world.ours.secret)):
        answer = other.post(path, body, content_type=JSON, headers={"Idempotency-Key": "k"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "admin_required")


def test_a_receipt_is_shown_with_its_bill_line_and_found_sound(world: World) -> None:
    record = world.ours.record
    body = key_client(world.ours.secret).get(f"/api/receipts/{record.request_id}").json()
    assert body["verified"] == {
        "sound": True,
        "problems": [],
        "worker_is_enrolled": True,
        "counts_match_the_bill": True,
        "charge_follows_from_prices": True,
        "transfers_match_the_bill": True,
    }
    assert body["receipt"]["entry"]["request_id"] == record.request_id
    assert body["bill_line"]["charge_nano"] == record.charge_nano
    assert body["decision"] == {"chosen": world.worker.id}
    listed = key_client(world.ours.secret).get("/api/receipts").json()
    assert [line["request_id"] for line in listed["data"]] == [record.request_id]


def test_a_receipt_of_the_worker_alone_is_sound_too(world: World) -> None:
    ours = world.ours
    alone = {"gateway": None, "gateway_signature": None, "gateway_public_key": None}
    kit = _kit(world, world.worker_key)
    with system_scope():
        record = record_make(ours.tenant, ours.project, ours.key, kit, alone, witness="worker")
    verdict = key_client(ours.secret).get(f"/api/receipts/{record.request_id}").json()["verified"]
    assert verdict["problems"] == []


def _kit(world: World, worker_key: SigningKey) -> ReceiptKit:
    price = Price(
        offer_id=world.ours.record.offer_id,
        input_nano_per_mtok=PRICES.input_nano_per_mtok,
        cached_input_nano_per_mtok=PRICES.cached_input_nano_per_mtok,
        output_nano_per_mtok=PRICES.output_nano_per_mtok,
        levy_ppm=50_000,
    )
    gateway_key = signing_key_load(world.folder / "gateway.pem")
    return ReceiptKit(world.worker, world.release, price, worker_key, gateway_key)


FALSE: tuple[tuple[dict[str, Any], dict[str, Any], str], ...] = (
    # in the receipt, in the record, what is found
    ({}, {"prompt_tokens": 99}, "not_counts_match_the_bill"),
    ({}, {"levy_nano": 0}, "not_charge_follows_from_prices"),
    ({}, {"levy_nano": 0}, "not_transfers_match_the_bill"),
    ({}, {"worker_id": "wrk_other"}, "not_worker_is_enrolled"),
    ({}, {"receipt": {}}, "receipt_unreadable"),
    ({"worker_signature": "AAAA"}, {}, "worker_signature_invalid"),
    ({"gateway_signature": "AAAA"}, {}, "gateway_signature_invalid"),
)


def test_what_does_not_fit_is_found(world: World) -> None:
    ours, kit = world.ours, _kit(world, world.worker_key)
    for in_receipt, in_record, problem in FALSE:
        with system_scope():
            record = record_make(ours.tenant, ours.project, ours.key, kit, in_receipt, **in_record)
        verdict = key_client(ours.secret).get(f"/api/receipts/{record.request_id}").json()["verified"]
        assert not verdict["sound"]
        assert problem in verdict["problems"]


def test_a_worker_that_never_enrolled_is_found(world: World) -> None:
    ours = world.ours
    kit = _kit(world, signing_key_load(world.folder / "forger.pem"))
    with system_scope():
        record = record_make(ours.tenant, ours.project, ours.key, kit)
    verdict = key_client(ours.secret).get(f"/api/receipts/{record.request_id}").json()["verified"]
    assert verdict["problems"] == ["not_worker_is_enrolled"]
