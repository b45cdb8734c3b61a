"""Holds whose gateway is gone: finding them, and settling or voiding them from here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import redis

from billing.rating import charge_for
from core import redis_keys
from core.clock import clock
from inference.messages import SignedEntry
from metering.events import ENCODER, UsageEvent
from metering.holds import SETTLE_LUA, Hold, PricedWorker, hold_parse, settle_args, settle_keys
from transparency.receipts import Bounds, Receipt, settled_tokens

ORPHAN_AFTER_MS = 5_000
STALE_AFTER_MS = 15 * 60_000
_PAGE = 500


@dataclass(frozen=True, slots=True)
class Orphan:
    """A hold nobody else will end; ``fields`` is its hash, perhaps not whole."""

    request_id: str
    created_ms: int
    fields: Mapping[bytes, bytes]

    def hold(self) -> Hold | None:
        """The hold in the hash; None when it is not whole."""
        try:
            return hold_parse(self.request_id, self.fields)
        except (KeyError, ValueError, msgspec.MsgspecError):
            return None


class OrphanHolds:
    """The holds in Redis that no living gateway will end, and the two ways to end them."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._settle = client.register_script(SETTLE_LUA)

    def find(self) -> Iterator[Orphan]:
        """Each hold older than 5 s whose gateway is gone, or older than 15 minutes anyway."""
        now_ms = clock.now_ms()
        alive: dict[str, bool] = {}
        for request_id, created_ms in self._older_than(now_ms - ORPHAN_AFTER_MS):
            fields: Any = self._client.hgetall(redis_keys.hold(request_id))
            if not fields:
                continue  # settled since it was listed
            gateway_id = fields.get(b"gateway_id", b"").decode(errors="replace")
            if gateway_id not in alive:
                alive[gateway_id] = bool(self._client.exists(redis_keys.gateway_alive(gateway_id)))
            if not alive[gateway_id] or created_ms < now_ms - STALE_AFTER_MS:
                yield Orphan(request_id, created_ms, fields)

    def settle(self, hold: Hold, priced: PricedWorker, signed: SignedEntry, public_key: str) -> bool:
        """Charge what the worker journalled, at the hold's price. False when someone else was first."""
        event = event_from_journal(hold, priced, signed, public_key)
        keys = settle_keys(request_id=hold.request_id, tenant_id=hold.tenant_id, key_id=hold.key_id)
        args = settle_args(
            request_id=hold.request_id,
            charge_nano=event.charge.charge_nano,
            tokens=event.prompt_tokens + event.completion_tokens,
            event=ENCODER.encode(event),
        )
        return bool(self._settle(keys=keys, args=args))

    def void(self, orphan: Orphan) -> bool:
        """Release the hold and charge nothing. False when someone else was first."""
        tenant_id, key_id = (orphan.fields.get(name, b"").decode() for name in (b"tenant_id", b"key_id"))
        keys = settle_keys(request_id=orphan.request_id, tenant_id=tenant_id, key_id=key_id)
        args = settle_args(request_id=orphan.request_id, charge_nano=0, tokens=0, event=b"")
        return bool(self._settle(keys=keys, args=args))

    def _older_than(self, limit_ms: int) -> list[tuple[str, int]]:
        found: list[tuple[bytes, float]] = []
        while True:
            page: Any = self._client.zrangebyscore(
                redis_keys.HOLDS, "-inf", limit_ms, start=len(found), num=_PAGE, withscores=True
            )
            found += page
            if len(page) < _PAGE:
                return [(request_id.decode(), int(score)) for request_id, score in found]


def event_from_journal(hold: Hold, priced: PricedWorker, signed: SignedEntry, public_key: str) -> UsageEvent:
    """The usage event of a request that only its worker can vouch for: counts never above the hold's."""
    entry, context = signed.entry, hold.context
    bounds = Bounds(
        prompt_tokens_max=context.prompt_tokens_max, completion_tokens_max=context.completion_tokens_max
    )
    prompt, cached, completion = settled_tokens(entry, bounds)
    receipt = Receipt(entry=entry, worker_signature=signed.signature, worker_public_key=public_key)
    return UsageEvent(
        request_id=hold.request_id,
        tenant_id=hold.tenant_id,
        project_id=hold.project_id,
        api_key_id=hold.key_id,
        partner_id=priced.partner_id,
        pool_id=priced.pool_id,
        worker_id=priced.worker_id,
        release_id=context.release_id,
        model=context.model,
        endpoint=context.endpoint,
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=completion,
        finish_reason=entry.finish_reason,
        price=priced.price,
        charge=charge_for(
            price=priced.price, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion
        ),
        received_at_ms=context.received_at_ms,
        first_token_at_ms=entry.first_token_at_ms,
        finished_at_ms=entry.finished_at_ms,
        witness="worker",
        receipt=receipt.to_dict(),
        decision=context.decision_record(),
    )
