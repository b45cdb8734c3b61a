"""One request's receipt as the page shows it: what is proved, what it cost, and why this partner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from billing.rating import Price, charge_for
from console.formats import percent_short
from core.errors import not_found
from core.money import PPM, format_dollars
from metering.models import UsageRecord
from partners.models import Worker
from routing.decide import decision_replay
from routing.records import Decision
from tenants.scope import system_scope
from transparency.receipts import verify

_EXCLUSIONS = {
    "release_mismatch": "serves another version of the model",
    "not_active": "draining or retired",
    "no_heartbeat": "no heartbeat",
    "not_ready": "not ready",
    "unreachable": "unreachable",
    "not_in_only": "not among the partners the request allowed",
    "ignored": "ruled out by the request",
    "over_max_price": "above the request’s maximum price",
    "not_in_order": "not in the request’s order",
}


@dataclass(frozen=True, slots=True)
class Seal:
    """One thing that was checked just now, and how it came out."""

    title: str
    text: str
    valid: bool


@dataclass(frozen=True, slots=True)
class CandidateRow:
    """An eligible worker. ``chance_ppm`` is how likely the draw was to take it."""

    worker_id: str
    partner: str
    input_nano_per_mtok: int
    load: str
    cost_ppm: int
    chance_ppm: int
    is_chosen: bool
    served: bool


@dataclass(frozen=True, slots=True)
class DecisionView:
    """The routing decision in words and rows."""

    policy: str
    reason: str
    candidates: tuple[CandidateRow, ...]
    excluded: tuple[tuple[str, str, str], ...]


def usage_record_get(request_id: str) -> UsageRecord:
    """The record in the caller's scope. Raises ApiError 404, also for another tenant's."""
    record = UsageRecord.objects.filter(request_id=request_id).first()
    if record is None:
        raise not_found(f"There is no receipt {request_id!r}.")
    return record


def receipt_problems(record: UsageRecord) -> list[str]:
    """Codes of what is wrong with the receipt; none means it is sound."""
    receipt: Mapping[str, Any] = record.receipt
    return verify(receipt)


def receipt_seals(record: UsageRecord, problems: list[str]) -> list[Seal]:
    """Both signatures, the replayed decision, the recomputed charge."""
    return [
        _worker_seal(record, problems),
        _gateway_seal(record, problems),
        _decision_seal(record),
        _charge_seal(record),
    ]


def decision_view(record: UsageRecord, names: Mapping[str, str]) -> DecisionView | None:
    """The decision for people, partners by ``names`` (id to name); None when its record has another form."""
    decision = _decision(record)
    if decision is None:
        return None
    total = sum(candidate.weight for candidate in decision.eligible) or 1
    rows = [
        CandidateRow(
            worker_id=candidate.worker_id,
            partner=names.get(candidate.partner_id, candidate.partner),
            input_nano_per_mtok=candidate.price.input_nano_per_mtok,
            load=f"{candidate.in_flight} of {candidate.max_running}",
            cost_ppm=candidate.cost_ppm,
            chance_ppm=candidate.weight * PPM // total,
            is_chosen=candidate.worker_id == decision.chosen,
            served=candidate.worker_id == record.worker_id,
        )
        for candidate in decision.eligible
    ]
    rows.sort(key=lambda row: (row.cost_ppm, row.worker_id))
    return DecisionView(
        policy=decision.policy.name,
        reason=_reason(rows),
        candidates=tuple(rows),
        excluded=tuple(
            (one.partner, one.worker_id, _EXCLUSIONS.get(one.code, one.code)) for one in decision.excluded
        ),
    )


def _reason(rows: list[CandidateRow]) -> str:
    """Why the chosen worker was, in one sentence; ``rows`` begin with the lowest cost."""
    chosen = next((row for row in rows if row.is_chosen), None)
    if chosen is None:
        return "No worker was eligible."
    if len(rows) == 1:
        return f"{chosen.partner} had the only eligible worker."
    how = "had the lowest cost of" if chosen is rows[0] else "was drawn among"
    return (
        f"{chosen.partner} {how} {len(rows)} eligible workers: "
        f"{format_dollars(chosen.input_nano_per_mtok)} per 1M input tokens, load {chosen.load}, "
        f"{percent_short(chosen.chance_ppm)} chance."
    )


def _decision(record: UsageRecord) -> Decision | None:
    try:
        return msgspec.convert(record.decision, Decision)
    except msgspec.ValidationError:
        return None


def _worker_seal(record: UsageRecord, problems: list[str]) -> Seal:
    malformed = any(problem.startswith("malformed") for problem in problems)
    if malformed or "worker_signature_invalid" in problems:
        return Seal("Worker’s signature fails", "The token counts are not what the worker signed.", False)
    if not _worker_is_enrolled(record):
        return Seal("Unknown worker", "The signing key is not that of the worker that was enrolled.", False)
    return Seal("Signed by the worker", "The enrolled worker that served it signed the token counts.", True)


def _worker_is_enrolled(record: UsageRecord) -> bool:
    with system_scope():  # tenants cannot list workers
        enrolled = Worker.objects.filter(
            id=record.worker_id, public_key=record.receipt.get("worker_public_key", "")
        )
        return enrolled.exists()


def _gateway_seal(record: UsageRecord, problems: list[str]) -> Seal:
    malformed = any(problem.startswith("malformed") for problem in problems)
    if malformed or "gateway_signature_invalid" in problems:
        return Seal("Gateway’s signature fails", "The charge is not what the gateway signed.", False)
    if record.receipt.get("gateway") is None:
        return Seal(
            "Not countersigned",
            "The gateway was lost during this request; it was settled from the worker’s signed journal.",
            False,
        )
    return Seal("Countersigned by the gateway", "The gateway that relayed it signed price and charge.", True)


def _decision_seal(record: UsageRecord) -> Seal:
    decision = _decision(record)
    if decision is None:
        return Seal("Decision not replayed", "Its record has a form this page does not know.", False)
    if decision_replay(decision) != decision:
        return Seal("Decision does not replay", "The same inputs lead to another partner.", False)
    return Seal("Decision replayed", "The published policy and the same inputs choose the same worker.", True)


def _charge_seal(record: UsageRecord) -> Seal:
    price = Price(
        offer_id=record.offer_id,
        input_nano_per_mtok=record.input_nano_per_mtok,
        cached_input_nano_per_mtok=record.cached_input_nano_per_mtok,
        output_nano_per_mtok=record.output_nano_per_mtok,
        levy_ppm=record.levy_ppm,
    )
    charge = charge_for(
        price=price,
        prompt_tokens=record.prompt_tokens,
        cached_tokens=record.cached_tokens,
        completion_tokens=record.completion_tokens,
    )
    if charge.charge_nano != record.charge_nano:
        return Seal("Charge does not add up", "Tokens times price gives another amount.", False)
    return Seal("Charge recomputed", "Tokens times price plus levy gives exactly this amount.", True)
