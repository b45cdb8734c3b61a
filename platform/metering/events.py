"""The usage event: what a gateway settles and the meter posts. Free of Django."""

from __future__ import annotations

from typing import Any

import msgspec

from billing.rating import Charge, Price

SCHEMA = 1


class UsageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What of a finished request is counted, priced and dated; an event adds its evidence."""

    schema: int = SCHEMA
    request_id: str
    tenant_id: str
    project_id: str
    api_key_id: str
    partner_id: str
    pool_id: str
    worker_id: str
    release_id: str
    model: str
    endpoint: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    finish_reason: str
    price: Price
    charge: Charge
    received_at_ms: int
    first_token_at_ms: int | None
    finished_at_ms: int
    witness: str


class UsageEvent(UsageFacts, frozen=True, kw_only=True):
    """One finished request. ``request_id`` is the idempotency key from gateway to ledger.

    ``witness`` is ``both`` when gateway and worker signed, ``worker`` when the sweeper settled from the
    worker's journal alone. ``receipt`` is transparency.receipts' form, ``decision`` routing's.
    """

    receipt: dict[str, Any]
    decision: dict[str, Any]


ENCODER = msgspec.json.Encoder()
DECODER = msgspec.json.Decoder(UsageEvent)
