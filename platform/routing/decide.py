"""The routing decision: a pure function. Same inputs, same choice, on any machine, at any later time.

Order of a snapshot's workers never matters, names break only exact ties (by the seed, so evenly).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import msgspec

from core.money import PPM, ceil_div
from routing.contests import contest_of
from routing.records import Candidate, Constraints, Decision, Exclusion, WorkerStatus
from routing.snapshot import Policy, Snapshot
from routing.weights import draw_index, draw_weight

_CANONICAL = msgspec.json.Encoder(order="sorted")

Entry = tuple[Candidate, int]  # a candidate's lasting facts, and its requests in flight now


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
    contest = contest_of(snapshot, request.model)
    entries: list[Entry] = []
    excluded: list[Exclusion] = []
    for entrant in contest.entrants:
        status = statuses.get(entrant.worker_id)
        code = exclusion_code(entrant, status, request)
        if code is not None:
            excluded.append(Exclusion(worker_id=entrant.worker_id, partner=entrant.partner, code=code))
        elif status is not None:
            entries.append((entrant, status.in_flight))
    if excluded and contest.excluded:
        excluded = sorted((*excluded, *contest.excluded), key=lambda one: one.worker_id)
    scored = score(policy=snapshot.policy, request=request, entries=entries)
    ranked = rank(scored, request=request, seed=seed)
    return Decision(
        policy=snapshot.policy,
        policy_digest=policy_digest,
        snapshot_version=snapshot.version,
        snapshot_digest=snapshot_digest,
        request=request,
        seed=seed.hex(),
        eligible=scored,
        excluded=tuple(excluded) or contest.excluded,
        ranked=ranked,
        chosen=ranked[0] if ranked else None,
        reason=reason_text(scored, ranked),
    )


def decision_replay(decision: Decision) -> Decision:
    """Repeat a decision from its own record; equal to ``decision`` unless the record was altered.

    The record carries the eligible candidates' facts; whether the right ones were excluded is checked by
    calling ``decide`` with the snapshot whose digest the record names.
    """
    entries = [(one, one.in_flight) for one in sorted(decision.eligible, key=lambda one: one.worker_id)]
    scored = score(policy=decision.policy, request=decision.request, entries=entries)
    ranked = rank(scored, request=decision.request, seed=bytes.fromhex(decision.seed))
    return msgspec.structs.replace(
        decision,
        policy_digest=digest_of(decision.policy),
        eligible=scored,
        ranked=ranked,
        chosen=ranked[0] if ranked else None,
        reason=reason_text(scored, ranked),
    )


def exclusion_code(entrant: Candidate, status: WorkerStatus | None, request: Constraints) -> str | None:
    """The first reason why a worker may not serve ``request``; None when it may."""
    if status is None:
        return "no_heartbeat"
    if status.state != "ready":
        return "unreachable" if status.state == "unreachable" else "not_ready"
    if request.is_open:
        return None
    partner = entrant.partner
    checks = (
        (request.only is not None and partner not in request.only, "not_in_only"),
        (partner in request.ignore, "ignored"),
        (_over_max_price(entrant, request), "over_max_price"),
        (
            bool(request.order) and not request.allow_fallbacks and partner not in request.order,
            "not_in_order",
        ),
    )
    return next((code for holds, code in checks if holds), None)


def score(*, policy: Policy, request: Constraints, entries: Sequence[Entry]) -> tuple[Candidate, ...]:
    """Candidates with tier, cost and weight filled in. ``entries`` are sorted by worker id."""
    if not entries:
        return ()
    prompt, completion, order = request.prompt_tokens, request.completion_tokens, request.order
    amounts = [
        prompt * one.price.input_nano_per_mtok + completion * one.price.output_nano_per_mtok
        for one, _ in entries
    ]
    cheapest = max(1, min(amounts))
    costs = [
        policy.price_weight * (amount * PPM // cheapest)
        + policy.load_weight * (in_flight * PPM // max(1, one.max_running))
        for amount, (one, in_flight) in zip(amounts, entries, strict=True)
    ]
    tiers = [order.index(one.partner) if one.partner in order else len(order) for one, _ in entries]
    first = min(tiers)
    least = min([cost for cost, tier in zip(costs, tiers, strict=True) if tier == first])
    return tuple(
        [
            Candidate(
                worker_id=one.worker_id,
                partner_id=one.partner_id,
                partner=one.partner,
                pool_id=one.pool_id,
                price=one.price,
                in_flight=in_flight,
                max_running=one.max_running,
                tier=tier,
                cost_ppm=cost,
                weight=draw_weight(cost - least, policy.half_cost_ppm) if tier == first else 0,
            )
            for (one, in_flight), cost, tier in zip(entries, costs, tiers, strict=True)
        ]
    )


def rank(scored: tuple[Candidate, ...], *, request: Constraints, seed: bytes) -> tuple[str, ...]:
    """Worker ids in the order they are tried: the drawn one, then the rest by tier and cost."""
    if not scored:
        return ()
    ordered = sorted(scored, key=lambda one: (one.tier, one.cost_ppm))
    if len({(one.tier, one.cost_ppm) for one in scored}) < len(scored):
        ordered.sort(key=lambda one: (one.tier, one.cost_ppm, _tie(seed, one.worker_id)))
    index = draw_index([one.weight for one in ordered], int.from_bytes(seed[:16], "big"))
    chosen = ordered.pop(index)
    if not request.allow_fallbacks and not request.order:
        return (chosen.worker_id,)
    return (chosen.worker_id, *[one.worker_id for one in ordered])


def reason_text(scored: tuple[Candidate, ...], ranked: tuple[str, ...]) -> str:
    """One line for people; ASCII, so it can be a header."""
    if not ranked:
        return "no eligible worker"
    chosen = next(one for one in scored if one.worker_id == ranked[0])
    lowest = not any(one.tier == chosen.tier and one.cost_ppm < chosen.cost_ppm for one in scored)
    how = "lowest cost" if lowest else "weighted draw"
    if any(one.tier > chosen.tier for one in scored):
        how = f"preferred by request, {how}"
    return (
        f"{how}: price {chosen.price.input_nano_per_mtok} nano/Mtok, "
        f"load {chosen.in_flight}/{chosen.max_running}; {len(scored)} eligible"
    )


def _tie(seed: bytes, worker_id: str) -> bytes:
    return hashlib.sha256(seed + worker_id.encode()).digest()


def _over_max_price(entrant: Candidate, request: Constraints) -> bool:
    price = entrant.price
    return _over(price.input_nano_per_mtok, price.levy_ppm, request.max_input_nano_per_mtok) or _over(
        price.output_nano_per_mtok, price.levy_ppm, request.max_output_nano_per_mtok
    )


def _over(price_nano_per_mtok: int, levy_ppm: int, limit: int | None) -> bool:
    return limit is not None and ceil_div(price_nano_per_mtok * (PPM + levy_ppm), PPM) > limit
