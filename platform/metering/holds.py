"""A hold: money set aside for a request's worst case, and the one script that ends it. Free of Django.

Life of a hold: the gateway's admission script creates it; then exactly one of {gateway, replay of the
gateway's journal, sweeper} ends it through ``SETTLE_LUA``, with a usage event or with none (void).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from billing.rating import Price
from core import redis_keys

SETTLE_LUA = Path(__file__).with_name("settle.lua").read_text(encoding="utf-8")
SETTLED_TTL_S = 3600


class PricedWorker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker the request may have been sent to, and its price when the hold was made."""

    worker_id: str
    partner_id: str
    pool_id: str
    price: Price


class HoldContext(msgspec.Struct, frozen=True, kw_only=True):
    """What settling needs when only the hold and a worker's journal are left.

    Token bounds are the hold's worst case: settle at ``min(worker's count, bound)``.
    ``decision`` is routing's record, raw JSON (``decision_record()`` decodes it).
    """

    endpoint: str
    model: str
    release_id: str
    release_digest: str
    prompt_tokens_max: int
    completion_tokens_max: int
    received_at_ms: int
    workers: tuple[PricedWorker, ...]
    decision: msgspec.Raw = msgspec.Raw(b"{}")

    def decision_record(self) -> dict[str, Any]:
        """The decision as plain JSON types, as ``UsageEvent.decision`` carries it."""
        return msgspec.json.decode(self.decision, type=dict[str, Any])

    def worker(self, worker_id: str) -> PricedWorker | None:
        """The priced candidate with this id, None when the request cannot have gone there."""
        return next((worker for worker in self.workers if worker.worker_id == worker_id), None)


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """The hash under ``redis_keys.hold(request_id)``.

    ``gateway_id`` names one life of a gateway process: ``redis_keys.gateway_alive(gateway_id)`` is gone a
    few seconds after that process, even when its successor is already there. ``tokens`` is what was taken
    from the key's token bucket.
    """

    request_id: str
    tenant_id: str
    project_id: str
    key_id: str
    amount_nano: int
    tokens: int
    gateway_id: str
    created_ms: int
    context: HoldContext


_CONTEXT_DECODER = msgspec.json.Decoder(HoldContext)


def hold_parse(request_id: str, fields: Mapping[bytes, bytes]) -> Hold:
    """The hold read by HGETALL. Raises KeyError or msgspec.ValidationError when it is not whole."""
    return Hold(
        request_id=request_id,
        tenant_id=fields[b"tenant_id"].decode(),
        project_id=fields[b"project_id"].decode(),
        key_id=fields[b"key_id"].decode(),
        amount_nano=int(fields[b"amount_nano"]),
        tokens=int(fields[b"tokens"]),
        gateway_id=fields[b"gateway_id"].decode(),
        created_ms=int(fields[b"created_ms"]),
        context=_CONTEXT_DECODER.decode(fields[b"context"]),
    )


def settle_keys(*, request_id: str, tenant_id: str, key_id: str) -> tuple[str, ...]:
    """KEYS of ``SETTLE_LUA``. Tenant and key may be empty when voiding: a hold knows its own."""
    return (
        redis_keys.settled(request_id),
        redis_keys.hold(request_id),
        redis_keys.HOLDS,
        redis_keys.account(tenant_id),
        redis_keys.bucket(key_id),
        redis_keys.USAGE_STREAM,
    )


def settle_args(
    *, request_id: str, charge_nano: int, tokens: int, event: bytes
) -> tuple[str | bytes | int, ...]:
    """ARGV of ``SETTLE_LUA``. ``event`` is an encoded UsageEvent; empty voids the hold (charge must be 0).

    ``tokens``: prompt + completion tokens used; what the hold took beyond them returns to the key's bucket.
    """
    if not event and charge_nano:
        raise ValueError("a charge needs its usage event")
    prefixes = (redis_keys.account(""), redis_keys.bucket(""))
    return (request_id, charge_nano, tokens, event, SETTLED_TTL_S, *prefixes)
