"""The routing decision: a pure function. Same inputs, same choice, on any machine, at any later time.

Order of a snapshot's workers never matters, names break only exact ties (by the seed, so evenly).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from billing.rating import Price
from core.money import PPM, ceil_div
from routing.records import Candidate, Constraints, Decision, Exclusion, WorkerStatus
from routing.snapshot import Model, Policy, Snapshot, WorkerEntry
from routing.weights import draw_index, draw_weight

_CANONICAL = msgspec.json.Encoder(order="sorted")


def digest_of(value: msgspec.Struct) -> str:
    """SHA-256 hex over the value's canonical JSON."""
    return hashlib.sha256(_CANONICAL.encode(value)).hexdigest()


def decide(
    *,
    snapshot: Snapshot,
    snapshot_digest: str,
    policy_digest: str,
    statuses: Mapping[str, WorkerStatus],
    request: Constraints,
    seed: bytes,
) -> Decision:
    """Choose a worker for ``request``.

    ``seed`` has 16 bytes or more. The digests are ``digest_of(snapshot)`` and ``digest_of(snapshot.policy)``,
    passed in because they are the same for many requests.
    """
    model = next((model for model in snapshot.models if model.name == request.model), None)
    eligible: list[Candidate] = []
    excluded: list[Exclusion] = []
    for worker in snapshot.workers:
        if model is None or worker.model != model.name:
            continue
        status = statuses.get(worker.worker_id)
        code = exclusion_code(worker, model, status, request)
        if code is not None:
            excluded.append(Exclusion(worker_id=worker.worker_id, partner=worker.partner_slug, code=code))
        elif status is not None:
            eligible.append(_candidate(worker, status.in_flight))
    excluded.sort(key=lambda exclusion: exclusion.worker_id)
    scored = score(policy=snapshot.policy, request=request, candidates=eligible)
    ranked = rank(scored, request=request, seed=seed)
    return Decision(
        policy=snapshot.policy,
        policy_digest=policy_digest,
        snapshot_version=snapshot.version,
        snapshot_digest=snapshot_digest,
        request=request,
        seed=seed.hex(),
        eligible=scored,
        excluded=tuple(excluded),
        ranked=ranked,
        chosen=ranked[0] if ranked else None,
        reason=reason_text(scored, ranked),
    )


def decision_replay(decision: Decision) -> Decision:
    """Repeat a decision from its own record; equal to ``decision`` unless the record was altered.

    The record carries the eligible candidates' facts; whether the right ones were excluded is checked by
    calling ``decide`` with the snapshot whose digest the record names.
    """
    scored = score(policy=decision.policy, request=decision.request, candidates=decision.eligible)
    ranked = rank(scored, request=decision.request, seed=bytes.fromhex(decision.seed))
    return msgspec.structs.replace(
        decision,
        policy_digest=digest_of(decision.policy),
        eligible=scored,
        ranked=ranked,
        chosen=ranked[0] if ranked else None,
        reason=reason_text(scored, ranked),
    )


def exclusion_code(
    worker: WorkerEntry, model: Model, status: WorkerStatus | None, request: Constraints
) -> str | None:
    """The first reason why ``worker`` may not serve ``request``; None when it may."""
    partner = worker.partner_slug
    state = status.state if status is not None else "silent"
    checks = (
        (worker.release_digest != model.release_digest, "release_mismatch"),
        (worker.state != "active", "not_active"),
        (state == "silent", "no_heartbeat"),
        (state == "unreachable", "unreachable"),
        (state != "ready", "not_ready"),
        (request.only is not None and partner not in request.only, "not_in_only"),
        (partner in request.ignore, "ignored"),
        (_over_max_price(worker.price, request), "over_max_price"),
        (_not_in_order(partner, request), "not_in_order"),
    )
    return next((code for holds, code in checks if holds), None)


def score(*, policy: Policy, request: Constraints, candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """Candidates with tier, cost and weight filled in, sorted by worker id."""
    found = sorted(candidates, key=lambda candidate: candidate.worker_id)
    if not found:
        return ()
    amounts = [_amount(candidate, request) for candidate in found]
    cheapest = max(1, min(amounts))
    costs = [
        policy.price_weight * (amount * PPM // cheapest)
        + policy.load_weight * (candidate.in_flight * PPM // max(1, candidate.max_running))
        for candidate, amount in zip(found, amounts, strict=True)
    ]
    tiers = [_tier(candidate.partner, request.order) for candidate in found]
    first = min(tiers)
    least = min(cost for cost, tier in zip(costs, tiers, strict=True) if tier == first)
    return tuple(
        Candidate(
            worker_id=candidate.worker_id,
            partner_id=candidate.partner_id,
            partner=candidate.partner,
            pool_id=candidate.pool_id,
            price=candidate.price,
            in_flight=candidate.in_flight,
            max_running=candidate.max_running,
            tier=tier,
            cost_ppm=cost,
            weight=draw_weight(cost - least, policy.half_cost_ppm) if tier == first else 0,
        )
        for candidate, cost, tier in zip(found, costs, tiers, strict=True)
    )


def rank(scored: tuple[Candidate, ...], *, request: Constraints, seed: bytes) -> tuple[str, ...]:
    """Worker ids in the order they are tried: the drawn one, then the rest by tier and cost."""
    if not scored:
        return ()
    ordered = sorted(scored, key=lambda one: (one.tier, one.cost_ppm, _tie(seed, one.worker_id)))
    index = draw_index([one.weight for one in ordered], int.from_bytes(seed[:16], "big"))
    chosen = ordered.pop(index)
    if not request.allow_fallbacks and not request.order:
        return (chosen.worker_id,)
    return (chosen.worker_id, *(one.worker_id for one in ordered))


def reason_text(scored: tuple[Candidate, ...], ranked: tuple[str, ...]) -> str:
    """One line for people; ASCII, so it can be a header."""
    if not ranked:
        return "no eligible worker"
    chosen = next(one for one in scored if one.worker_id == ranked[0])
    tier = [one for one in scored if one.tier == chosen.tier]
    lowest = chosen.cost_ppm == min(one.cost_ppm for one in tier)
    how = "lowest cost" if lowest else "weighted draw"
    if chosen.tier < max(one.tier for one in scored):
        how = f"preferred by request, {how}"
    return (
        f"{how}: price {chosen.price.input_nano_per_mtok} nano/Mtok, "
        f"load {chosen.in_flight}/{chosen.max_running}; {len(scored)} eligible"
    )


def _candidate(worker: WorkerEntry, in_flight: int) -> Candidate:
    return Candidate(
        worker_id=worker.worker_id,
        partner_id=worker.partner_id,
        partner=worker.partner_slug,
        pool_id=worker.pool_id,
        price=worker.price,
        in_flight=in_flight,
        max_running=worker.max_running,
        tier=0,
        cost_ppm=0,
        weight=0,
    )


def _amount(candidate: Candidate, request: Constraints) -> int:
    """The request's worst case at this price, unrounded."""
    price = candidate.price
    return request.prompt_tokens * price.input_nano_per_mtok + request.completion_tokens * (
        price.output_nano_per_mtok
    )


def _tier(partner: str, order: tuple[str, ...]) -> int:
    return order.index(partner) if partner in order else len(order)


def _tie(seed: bytes, worker_id: str) -> bytes:
    return hashlib.sha256(seed + worker_id.encode()).digest()


def _not_in_order(partner: str, request: Constraints) -> bool:
    return bool(request.order) and not request.allow_fallbacks and partner not in request.order


def _over_max_price(price: Price, request: Constraints) -> bool:
    return _over(price.input_nano_per_mtok, price.levy_ppm, request.max_input_nano_per_mtok) or _over(
        price.output_nano_per_mtok, price.levy_ppm, request.max_output_nano_per_mtok
    )


def _over(price_nano_per_mtok: int, levy_ppm: int, limit: int | None) -> bool:
    return limit is not None and ceil_div(price_nano_per_mtok * (PPM + levy_ppm), PPM) > limit
