"""What the meter accepts, and the reasons it gives for what it does not. No services needed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billing.rating import Charge, Price, charge_for
from core.clock import clock
from core.ids import new_id
from metering.events import ENCODER, UsageEvent
from metering.intake import Accepted, Message, Refused, event_check, message_read
from tests.metering.world import PRICE


def make(**changes: Any) -> UsageEvent:
    """A well-formed event with ``changes``, its charge following the counts."""
    fields: dict[str, Any] = {
        "request_id": new_id("req"),
        "tenant_id": new_id("ten"),
        "project_id": new_id("prj"),
        "api_key_id": new_id("key"),
        "partner_id": new_id("par"),
        "pool_id": new_id("pol"),
        "worker_id": new_id("wrk"),
        "release_id": new_id("rel"),
        "model": "tokenworks-nano",
        "endpoint": "/v1/completions",
        "prompt_tokens": 10,
        "cached_tokens": 4,
        "completion_tokens": 7,
        "finish_reason": "length",
        "price": PRICE,
        "received_at_ms": clock.now_ms(),
        "first_token_at_ms": None,
        "finished_at_ms": clock.now_ms(),
        "witness": "worker",
        "receipt": {"text": 'ünïcode \\ " \n'},
        "decision": {},
        **changes,
    }
    if "charge" not in fields:
        counts = {name: fields[name] for name in ("prompt_tokens", "cached_tokens", "completion_tokens")}
        fields["charge"] = charge_for(price=fields["price"], **counts)
    return UsageEvent(**fields)


def message(event: UsageEvent, *, raw: bytes | None = None, **changes: Any) -> Message:
    """The stream entry that settling ``event`` makes, with ``changes`` to its labels."""
    labels: dict[str, Any] = {
        "request_id": event.request_id,
        "tenant_id": event.tenant_id,
        "charge_nano": event.charge.charge_nano,
        **changes,
    }
    return Message(message_id="1-0", raw=ENCODER.encode(event) if raw is None else raw, **labels)


def reason(checked: Accepted | Refused) -> str:
    """Why it was refused."""
    assert isinstance(checked, Refused)
    return checked.reason


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    prompt=st.integers(0, 10**6),
    cached_share=st.integers(0, 100),
    completion=st.integers(0, 10**6),
    rate=st.integers(0, 10**9),
    levy_ppm=st.integers(0, 10**6),
)
def test_every_honest_event_is_accepted(
    prompt: int, cached_share: int, completion: int, rate: int, levy_ppm: int
) -> None:
    price = Price(
        offer_id=new_id("off"),
        input_nano_per_mtok=rate,
        cached_input_nano_per_mtok=rate // 3,
        output_nano_per_mtok=rate * 2,
        levy_ppm=levy_ppm,
    )
    cached = prompt * cached_share // 100
    event = make(prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion, price=price)
    checked = event_check(message(event))
    assert isinstance(checked, Accepted)
    assert checked.event.charge == event.charge
    assert msgspec.json.decode(checked.event.receipt) == event.receipt


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 2}, "schema 2"),
        ({"request_id": "req_short"}, "malformed"),
        ({"tenant_id": "ten_" + "u" * 26}, "malformed"),
        ({"witness": "nobody"}, "witness"),
        ({"receipt": None}, "not an object"),
        ({"decision": [{}]}, "not an object"),
        ({"finished_at_ms": -1}, "time"),
        ({"first_token_at_ms": 10**15}, "time"),
        ({"prompt_tokens": 2**40, "cached_tokens": 0}, "token counts are out of range"),
        ({"charge": Charge(share_nano=1, levy_nano=1, charge_nano=2)}, "should be"),
        ({"charge": Charge(share_nano=0, levy_nano=0, charge_nano=0)}, "should be"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], said: str) -> None:
    assert said in reason(event_check(message(make(**changes))))


def test_impossible_counts_and_negative_prices_are_refused() -> None:
    honest = make()
    for wrong in (
        msgspec.structs.replace(honest, cached_tokens=11),
        msgspec.structs.replace(honest, completion_tokens=-1),
        msgspec.structs.replace(honest, price=msgspec.structs.replace(PRICE, output_nano_per_mtok=-5)),
    ):
        assert reason(event_check(message(wrong)))


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b'{"schema":1}', b"\xff\xfe", b'{"schema":"\xff"}']
)
def test_unreadable_bytes_are_refused(raw: bytes) -> None:
    assert "malformed" in reason(event_check(message(make(), raw=raw)))


def test_labels_must_say_what_the_event_says() -> None:
    event = make()
    assert "differs" in reason(event_check(message(event, tenant_id=new_id("ten"))))
    assert "differs" in reason(event_check(message(event, charge_nano=event.charge.charge_nano + 1)))


def test_an_entry_without_labels_takes_them_from_its_event() -> None:
    event = make()
    checked = event_check(message_read(b"5-1", {b"event": ENCODER.encode(event)}))
    assert isinstance(checked, Accepted)
    assert (checked.message.request_id, checked.message.tenant_id) == (event.request_id, event.tenant_id)
    assert checked.message.charge_nano == event.charge.charge_nano


@pytest.mark.parametrize("charge", [b"", b"-5", b"1.5", b"x"])
def test_odd_labels_make_nothing_pending(charge: bytes) -> None:
    assert message_read(b"1-0", {b"charge_nano": charge}).charge_nano == 0
