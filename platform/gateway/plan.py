"""From a body to a plan: bounds, routing decision, hold. Computed on the view; nothing is sent yet."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec

from billing.rating import Price, charge_for
from core.errors import ApiError, overloaded
from gateway.bodies import (
    DEFAULT_CHAT_TOKENS,
    DEFAULT_COMPLETION_TOKENS,
    Ask,
    Endpoint,
    ask_parse,
    body_with_limit,
    price_limit,
)
from gateway.plane import Plane
from metering.holds import HoldContext, PricedWorker
from routing.decide import decide
from routing.records import Constraints, Decision
from routing.seeds import request_seed
from routing.snapshot import Model
from transparency.receipts import Bounds

_ENCODER = msgspec.json.Encoder()
_PREFERENCE_CODES = frozenset({"not_in_only", "ignored", "over_max_price", "not_in_order"})


class Plan(NamedTuple):
    """What will be asked of which workers, and what it may cost at most. ``body`` goes to the worker."""

    ask: Ask
    model: Model
    bounds: Bounds
    body: bytes
    decision: Decision
    decision_json: bytes
    decision_digest: str
    amount_nano: int
    context: bytes


def plan_make(plane: Plane, endpoint: Endpoint, body: bytes, *, request_id: str, now_ms: int) -> Plan:
    """The plan for a request body. Raises ApiError (400, 404, 422, 503)."""
    ask = ask_parse(endpoint, body)
    view = plane.view
    snapshot = view.require_snapshot()
    model = view.model(ask.model)
    bounds, body = _bounds(ask, model.max_model_len)
    decision = decide(
        snapshot=snapshot,
        snapshot_digest=view.snapshot_digest,
        policy_digest=view.policy_digest,
        statuses=view.statuses(model.name),
        request=constraints_of(ask, bounds),
        seed=request_seed(plane.day_key(now_ms), request_id),
    )
    if decision.chosen is None:
        raise _nobody(decision)
    record = _ENCODER.encode(decision)
    return Plan(
        ask=ask,
        model=model,
        bounds=bounds,
        body=body,
        decision=decision,
        decision_json=record,
        decision_digest=hashlib.sha256(record).hexdigest(),
        amount_nano=worst_case_nano(decision, bounds),
        context=_context(model, bounds, decision, record, endpoint=endpoint, now_ms=now_ms),
    )


def constraints_of(ask: Ask, bounds: Bounds) -> Constraints:
    """The request as routing sees it. Raises ApiError (422) for prices that are none."""
    size = Constraints(
        model=ask.model,
        prompt_tokens=bounds.prompt_tokens_max,
        completion_tokens=bounds.completion_tokens_max,
    )
    wanted = ask.provider
    if wanted is None:
        return size
    price = wanted.max_price
    return msgspec.structs.replace(
        size,
        order=wanted.order or (),
        only=wanted.only,
        ignore=wanted.ignore or (),
        max_input_nano_per_mtok=price_limit(price.prompt, "prompt") if price else None,
        max_output_nano_per_mtok=price_limit(price.completion, "completion") if price else None,
        allow_fallbacks=wanted.allow_fallbacks is not False,
    )


def _bounds(ask: Ask, max_model_len: int) -> tuple[Bounds, bytes]:
    """The worst case of all choices together, and the body that cannot exceed it.

    Without ``max_tokens`` the gateway sets its default; only where a chat's prompt may leave less room than
    that, the worker's own default (all that is left of the context) stays, and the context is the bound.
    """
    prompt = min(ask.prompt_tokens_max, max_model_len * ask.prompts)
    completion, body = ask.max_tokens, ask.body
    if completion is None and ask.endpoint == "completions":
        completion = DEFAULT_COMPLETION_TOKENS
        body = body_with_limit(ask, completion)
    elif completion is None and max_model_len - prompt >= DEFAULT_CHAT_TOKENS:
        completion = DEFAULT_CHAT_TOKENS
        body = body_with_limit(ask, completion)
    completion = max_model_len if completion is None else min(completion, max_model_len)
    return Bounds(prompt_tokens_max=prompt, completion_tokens_max=completion * ask.choices), body


def worst_case_nano(decision: Decision, bounds: Bounds) -> int:
    """The most that the request can cost at any eligible worker, whatever share of its prompt is cached."""
    return max(
        charge_for(
            price=candidate.price,
            prompt_tokens=bounds.prompt_tokens_max,
            cached_tokens=bounds.prompt_tokens_max if _caching_costs_more(candidate.price) else 0,
            completion_tokens=bounds.completion_tokens_max,
        ).charge_nano
        for candidate in decision.eligible
    )


def _caching_costs_more(price: Price) -> bool:
    return price.cached_input_nano_per_mtok > price.input_nano_per_mtok


def _context(
    model: Model, bounds: Bounds, decision: Decision, record: bytes, *, endpoint: str, now_ms: int
) -> bytes:
    return _ENCODER.encode(
        HoldContext(
            endpoint=endpoint,
            model=model.name,
            release_id=model.release_id,
            release_digest=model.release_digest,
            prompt_tokens_max=bounds.prompt_tokens_max,
            completion_tokens_max=bounds.completion_tokens_max,
            received_at_ms=now_ms,
            workers=tuple(
                PricedWorker(
                    worker_id=candidate.worker_id,
                    partner_id=candidate.partner_id,
                    pool_id=candidate.pool_id,
                    price=candidate.price,
                )
                for candidate in decision.eligible
            ),
            decision=msgspec.Raw(record),
        )
    )


def _nobody(decision: Decision) -> ApiError:
    codes = sorted({exclusion.code for exclusion in decision.excluded})
    if codes and _PREFERENCE_CODES.issuperset(codes):
        message = f"No worker meets the provider preferences ({', '.join(codes)}). Relax them."
        return ApiError(422, message, param="provider", code="no_matching_provider")
    why = f" ({', '.join(codes)})" if codes else ""
    return overloaded(f"No worker can serve {decision.request.model} at the moment{why}. Try again shortly.")
