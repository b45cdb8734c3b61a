"""The bill and its receipts: right to the nano-dollar, and only one's own."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from django.test import Client

from console.formats import dollars_aligned
from core.money import format_dollars
from tests.console.world import World, decision_make, usage_make
from transparency.receipts import verify

MARCH = datetime(2026, 3, 14, 12, tzinfo=UTC)


def test_a_month_adds_up_and_leads_to_receipts(world: World, owner_client: Client) -> None:
    first = usage_make(world, at=MARCH)
    second = usage_make(world, at=MARCH + timedelta(hours=1), completion_tokens=7)
    outside = usage_make(world, at=MARCH + timedelta(days=40))
    theirs = usage_make(world, at=MARCH, tenant=world.other_tenant)
    page = owner_client.get("/console/bill?month=2026-03").content.decode()
    for record in (first, second):
        assert f"/console/receipts/{record.request_id}" in page
        assert dollars_aligned(record.charge_nano) in page
    assert format_dollars(first.charge_nano + second.charge_nano) in page
    assert outside.request_id not in page
    assert theirs.request_id not in page


def test_a_long_month_comes_in_pages(world: World, owner_client: Client) -> None:
    at = datetime(2025, 5, 2, tzinfo=UTC)
    ids = [usage_make(world, at=at + timedelta(minutes=step)).request_id for step in range(52)]
    seen: list[str] = []
    url: str | None = "/console/bill?month=2025-05"
    while url is not None:
        page = owner_client.get(url).content.decode()
        seen += [request_id for request_id in reversed(ids) if f"receipts/{request_id}" in page]
        before = page.partition("&amp;before=")[2].partition('"')[0]
        url = f"/console/bill?month=2025-05&before={before}" if before else None
    assert seen == ids[::-1]


@pytest.mark.parametrize("month", ["", "soon", "1850-01", "9999-12", "2026-13"])
def test_a_strange_month_is_this_month(month: str, owner_client: Client) -> None:
    response = owner_client.get("/console/bill", {"month": month})
    assert response.status_code == 200
    assert "Balance left" in response.content.decode()


def test_a_month_without_requests_says_so(owner_client: Client) -> None:
    assert "No requests in April 2024" in owner_client.get("/console/bill?month=2024-04").content.decode()


def test_a_receipt_shows_that_everything_checks(world: World, owner_client: Client) -> None:
    record = usage_make(world, decision=decision_make(world, silent=1))
    page = owner_client.get(f"/console/receipts/{record.request_id}").content.decode()
    for seal in ("Signed by the worker", "Countersigned by", "Decision replayed", "Charge recomputed"):
        assert seal in page
    assert 'class="seal bad"' not in page
    assert "No heartbeat" in page  # the excluded worker, with its reason
    assert "had the lowest cost of 2 eligible workers" in page


def test_a_receipt_that_was_altered_is_called_out(world: World, owner_client: Client) -> None:
    record = usage_make(
        world,
        tamper=lambda receipt: msgspec.structs.replace(
            receipt, worker_signature=receipt.gateway_signature or ""
        ),
    )
    page = owner_client.get(f"/console/receipts/{record.request_id}").content.decode()
    assert "Worker’s signature fails" in page
    assert "worker_signature_invalid" in page


def test_a_signature_of_an_unknown_worker_is_called_out(world: World, owner_client: Client) -> None:
    stranger = world.gateway_key
    record = usage_make(
        world,
        tamper=lambda receipt: msgspec.structs.replace(
            receipt,
            worker_signature=stranger.sign(receipt.entry.signing_bytes()),
            worker_public_key=stranger.public_text,
        ),
    )
    page = owner_client.get(f"/console/receipts/{record.request_id}").content.decode()
    assert "Unknown worker" in page


def test_another_tenants_receipt_does_not_exist(world: World, owner_client: Client) -> None:
    theirs = usage_make(world, tenant=world.other_tenant)
    for path in ("", "/json"):
        response = owner_client.get(f"/console/receipts/{theirs.request_id}{path}")
        assert response.status_code == 404
        assert theirs.worker_id not in response.content.decode()
    outcome = owner_client.get(f"/console/playground/outcome/{theirs.request_id}").content.decode()
    assert "Settling" in outcome  # as for a request that does not exist
    assert "Served by" not in outcome


def test_the_downloaded_receipt_verifies_elsewhere(world: World, owner_client: Client) -> None:
    record = usage_make(world)
    response = owner_client.get(f"/console/receipts/{record.request_id}/json")
    assert response["Content-Disposition"] == f'attachment; filename="{record.request_id}.json"'
    assert verify(json.loads(response.content)["receipt"]) == []
