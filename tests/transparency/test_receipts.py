"""A receipt holds only as both witnesses signed it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.signing import SigningKey, signing_key_load
from inference.messages import JournalEntry, SignedEntry
from transparency.receipts import (
    Bounds,
    Receipt,
    Statement,
    entry_problems,
    entry_signing_bytes,
    receipt_countersign,
    receipt_parse,
    settled_tokens,
    signed_entry_parse,
    verify,
)

ENTRY = JournalEntry(
    seq=1, prev_hash="0" * 64, worker_id="wrk_1", request_id="req_1", model="nano", release_digest="d" * 64,
    prompt_tokens=10, cached_tokens=4, completion_tokens=5, finish_reason="stop", received_at_ms=1000,
    first_token_at_ms=1010, finished_at_ms=1050, output_sha256="a" * 64,
)  # fmt: skip
BOUNDS = Bounds(prompt_tokens_max=20, completion_tokens_max=8)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[SigningKey, SigningKey]:
    folder: Path = tmp_path_factory.mktemp("keys")
    return signing_key_load(folder / "worker.pem"), signing_key_load(folder / "gateway.pem")


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b'{"signature":"\xff"}', b'{"signature":' + b"[" * 100_000, b'{"x":' + b"[" * 100_000],
)
def test_no_worker_can_send_what_is_not_a_decode_error(raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        signed_entry_parse(raw)


@pytest.fixture
def receipt(keys: tuple[SigningKey, SigningKey]) -> Receipt:
    worker, gateway = keys
    statement = Statement(
        gateway_id="gw_1",
        request_id="req_1",
        tenant_id="ten_1",
        entry_hash="",
        prompt_tokens=10,
        cached_tokens=4,
        completion_tokens=5,
        price={"offer_id": "off_1", "levy_ppm": 50_000},
        charge={"share_nano": 100, "levy_nano": 5, "charge_nano": 105},
        relayed_frames=7,
        output_sha256=None,
        decision_digest="e" * 64,
    )
    unsigned = Receipt(
        entry=ENTRY,
        worker_signature=worker.sign(ENTRY.signing_bytes()),
        worker_public_key=worker.public_text,
        gateway=statement,
    )
    return receipt_countersign(unsigned, gateway)


def test_sound_receipt_verifies_from_its_json(receipt: Receipt) -> None:
    assert verify(receipt) == []
    raw = msgspec.json.decode(msgspec.json.encode(receipt.to_dict()))
    assert verify(raw) == []
    assert receipt_parse(raw) == receipt


def test_workers_half_alone_verifies(receipt: Receipt) -> None:
    half = Receipt(
        entry=receipt.entry,
        worker_signature=receipt.worker_signature,
        worker_public_key=receipt.worker_public_key,
    )
    assert verify(half) == []


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(JournalEntry)])
def test_any_change_of_the_entry_is_found(receipt: Receipt, field: str) -> None:
    value = getattr(ENTRY, field)
    changed = value + 1 if isinstance(value, int) else ("length" if field == "finish_reason" else f"{value}x")
    raw = receipt.to_dict()
    raw["entry"][field] = changed
    problems = verify(raw)
    assert "worker_signature_invalid" in problems
    assert "entry_hash_mismatch" in problems


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tenant_id", "ten_2"),
        ("completion_tokens", 4),
        ("charge", {"share_nano": 1, "levy_nano": 0, "charge_nano": 1}),
        ("decision_digest", "f" * 64),
        ("relayed_frames", 8),
        ("problems", ["usage_mismatch"]),
    ],
)
def test_any_change_of_the_statement_is_found(receipt: Receipt, field: str, value: Any) -> None:
    raw = receipt.to_dict()
    raw["gateway"][field] = value
    assert "gateway_signature_invalid" in verify(raw)


def test_foreign_signature_is_noted_and_signed_as_a_problem(
    receipt: Receipt, keys: tuple[SigningKey, SigningKey]
) -> None:
    _, gateway = keys
    forged = msgspec.structs.replace(receipt, worker_signature=gateway.sign(b"other"))
    signed = receipt_countersign(forged, gateway)
    assert signed.gateway is not None
    assert signed.gateway.problems == ("worker_signature_invalid",)
    assert verify(signed) == ["worker_signature_invalid"]


def test_charging_more_than_served_is_found(receipt: Receipt, keys: tuple[SigningKey, SigningKey]) -> None:
    assert receipt.gateway is not None
    greedy = msgspec.structs.replace(receipt.gateway, completion_tokens=6)
    signed = receipt_countersign(msgspec.structs.replace(receipt, gateway=greedy), keys[1])
    assert verify(signed) == ["charged_more_than_served"]


def test_malformed_receipt_is_a_problem_not_an_exception() -> None:
    assert verify({})[0].startswith("malformed")
    assert verify({"entry": {}, "worker_signature": 3, "worker_public_key": ""})[0].startswith("malformed")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"request_id": "req_2"}, "request_id_mismatch"),
        ({"worker_id": "wrk_2"}, "worker_mismatch"),
        ({"model": "big"}, "model_mismatch"),
        ({"release_digest": "e" * 64}, "release_mismatch"),
        ({"cached_tokens": 11}, "cached_tokens_implausible"),
        ({"prompt_tokens": 21}, "prompt_tokens_implausible"),
        ({"completion_tokens": 9}, "completion_tokens_implausible"),
        ({"finished_at_ms": 999}, "times_implausible"),
    ],
)
def test_implausible_entries(changes: dict[str, Any], code: str) -> None:
    def problems(entry: JournalEntry) -> list[str]:
        return entry_problems(
            entry, request_id="req_1", worker_id="wrk_1", model="nano", release_digest="d" * 64, bounds=BOUNDS
        )

    assert problems(ENTRY) == []
    assert problems(dataclasses.replace(ENTRY, **changes)) == [code]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(*[st.integers(-5, 100)] * 3)
def test_settled_tokens_stay_in_bounds(prompt: int, cached: int, completion: int) -> None:
    entry = dataclasses.replace(
        ENTRY, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion
    )
    got_prompt, got_cached, got_completion = settled_tokens(entry, BOUNDS)
    assert 0 <= got_cached <= got_prompt <= BOUNDS.prompt_tokens_max
    assert 0 <= got_completion <= BOUNDS.completion_tokens_max
    assert got_completion <= max(0, completion)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), st.integers(-(2**63), 2**63 - 1))
def test_fast_signing_bytes_are_the_canonical_ones(text: str, number: int) -> None:
    entry = dataclasses.replace(ENTRY, model=text, request_id=text, finished_at_ms=number)
    assert entry_signing_bytes(entry) == entry.signing_bytes()
    signed = SignedEntry(entry, "c2ln")
    assert signed_entry_parse(msgspec.json.encode(signed.to_dict())) == signed
