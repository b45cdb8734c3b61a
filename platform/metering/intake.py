"""From a stream message to an event worth posting, or the reason why it is not. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import msgspec

from billing.rating import charge_for
from core.ids import is_id
from metering.events import SCHEMA, UsageFacts

WITNESSES = frozenset({"both", "worker"})
BIGINT_MAX = 2**63 - 1
TOKENS_MAX = 2**31 - 1
# Earliest and latest time a date in PostgreSQL and Python can both hold comfortably: 1970 to 2200.
TIME_MS_MAX = 7_258_118_400_000


class Posting(UsageFacts, frozen=True, kw_only=True):
    """``events.UsageEvent`` as the meter reads it: receipt and decision stay the bytes they came as."""

    receipt: msgspec.Raw
    decision: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Message:
    """One entry of the usage stream. The last three repeat what settling did to ``pending``, and for whom."""

    message_id: str
    raw: bytes
    request_id: str
    tenant_id: str
    charge_nano: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """A message whose event may be posted."""

    message: Message
    event: Posting


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that can never be posted as it is, and why."""

    message: Message
    reason: str


_DECODER = msgspec.json.Decoder(Posting)


def message_read(message_id: bytes, fields: Mapping[bytes, bytes]) -> Message:
    """The message in a stream entry. Missing or odd fields become empty: ``event_check`` copes with them."""
    charge = fields.get(b"charge_nano", b"0")
    return Message(
        message_id=message_id.decode(),
        raw=fields.get(b"event", b""),
        request_id=fields.get(b"request_id", b"").decode(errors="replace"),
        tenant_id=fields.get(b"tenant_id", b"").decode(errors="replace"),
        charge_nano=int(charge) if charge.isdigit() else 0,
    )


def event_check(message: Message) -> Accepted | Refused:
    """Decode the event and rate it again: what cannot be proved right is not posted."""
    try:
        event = _DECODER.decode(message.raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Refused(message=message, reason=f"malformed: {error}")
    if not message.tenant_id:
        message = _labelled(message, event)
    problem = _problem(event)
    if problem is None and (message.tenant_id, message.charge_nano) != (
        event.tenant_id,
        event.charge.charge_nano,
    ):
        problem = "the stream's tenant or charge differs from the event's"
    return Refused(message=message, reason=problem) if problem else Accepted(message=message, event=event)


def _labelled(message: Message, event: Posting) -> Message:
    """An entry with nothing but the event: what it says of itself is what was made pending."""
    return replace(
        message,
        request_id=event.request_id,
        tenant_id=event.tenant_id,
        charge_nano=max(0, event.charge.charge_nano),
    )


def _problem(event: Posting) -> str | None:
    times = (event.received_at_ms, event.first_token_at_ms or 0, event.finished_at_ms)
    if event.schema != SCHEMA:
        return f"schema {event.schema} is not {SCHEMA}"
    if not (is_id(event.request_id, "req") and is_id(event.tenant_id, "ten")):
        return "request or tenant id is malformed"
    if event.witness not in WITNESSES:
        return f"witness {event.witness!r} is not known"
    if not (min(times) >= 0 and max(times) <= TIME_MS_MAX):
        return "a time is out of range"
    if not (_is_object(event.receipt) and _is_object(event.decision)):
        return "receipt or decision is not an object"
    return _rating_problem(event)


def _is_object(raw: msgspec.Raw) -> bool:
    return bytes(raw).startswith(b"{")


def _rating_problem(event: Posting) -> str | None:
    if max(event.prompt_tokens, event.completion_tokens) > TOKENS_MAX:
        return "token counts are out of range"
    price = event.price
    rates = (
        price.input_nano_per_mtok,
        price.cached_input_nano_per_mtok,
        price.output_nano_per_mtok,
        price.levy_ppm,
    )
    if min(rates) < 0:
        return "a price is negative"
    try:
        charge = charge_for(
            price=price,
            prompt_tokens=event.prompt_tokens,
            cached_tokens=event.cached_tokens,
            completion_tokens=event.completion_tokens,
        )
    except ValueError as error:
        return str(error)
    if charge.charge_nano > BIGINT_MAX:
        return "the charge is out of range"
    return None if charge == event.charge else f"charge {event.charge} should be {charge}"
