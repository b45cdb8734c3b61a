"""Messages that are signed: the same bytes from the same values, on both sides, for ever."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.messages import (
    GENESIS_HASH,
    ByteRange,
    Capacity,
    Enrolment,
    EnrolRequest,
    Heartbeat,
    JournalEntry,
    SignedEntry,
    canonical_bytes,
    challenge_proof,
    manifest_digest,
)

ENTRY = JournalEntry(
    seq=7,
    prev_hash=GENESIS_HASH,
    worker_id="wrk_1",
    request_id="req_1",
    model="nano",
    release_digest="ab",
    prompt_tokens=5,
    cached_tokens=1,
    completion_tokens=2,
    finish_reason="stop",
    received_at_ms=1_000,
    first_token_at_ms=None,
    finished_at_ms=2_000,
    output_sha256="cd",
)
ALL: list[Any] = [
    ENTRY,
    SignedEntry(ENTRY, "c2ln"),
    Capacity(max_running=4, cache_tokens=100, max_model_len=512),
    ByteRange(path="model.safetensors", offset=0, length=9),
    EnrolRequest("t", "n", "w", "http://x", "k", "nano", "d", "p", {"max_running": 4}),
    Enrolment("wrk_1", "pol_1", "par_1", "token", ["http://x"], 1000),
    Heartbeat("wrk_1", 1, 2, "ready", "d", 3, 4, 5, 6, 7),
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), json_values, max_size=6)
)
def test_canonical_bytes_survive_a_round_trip_and_any_order(payload: dict[str, Any]) -> None:
    raw = canonical_bytes(payload)
    assert json.loads(raw) == payload
    assert canonical_bytes(json.loads(raw)) == raw
    assert canonical_bytes(dict(reversed(payload.items()))) == raw


def test_canonical_form_is_pinned() -> None:
    assert canonical_bytes({"b": [1, None, True], "a": "é\n", "c": {}}) == (
        '{"a":"é\\n","b":[1,null,true],"c":{}}'.encode()
    )


@pytest.mark.parametrize(
    "payload", [{"a": 1.0}, {"a": [{"b": 0.5}]}, {"a": float("nan")}, {"a": ({1.5: 1},)}]
)
def test_floats_are_refused_anywhere(payload: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        canonical_bytes(payload)


@pytest.mark.parametrize("payload", [{"a": b"x"}, {"a": {1}}, {"a": object()}])
def test_what_json_lacks_is_refused(payload: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        canonical_bytes(payload)


def test_keys_that_are_no_text_are_refused() -> None:
    """1 and "1" would be the same key in JSON: two payloads must never share their bytes."""
    with pytest.raises(TypeError):
        canonical_bytes({"a": {1: 2}})


@pytest.mark.parametrize("message", ALL, ids=lambda message: type(message).__name__)
def test_round_trip(message: Any) -> None:
    raw = json.loads(json.dumps(message.to_dict()))
    assert type(message).from_dict(raw) == message


@pytest.mark.parametrize("message", [one for one in ALL if not isinstance(one, SignedEntry)], ids=type)
def test_missing_and_unknown_fields_are_named(message: Any) -> None:
    raw = message.to_dict()
    name = next(iter(raw))
    with pytest.raises(ValueError, match=name):
        type(message).from_dict({key: value for key, value in raw.items() if key != name})
    with pytest.raises(ValueError, match="surplus"):
        type(message).from_dict({**raw, "surplus": 1})


def test_a_signature_fits_no_other_type() -> None:
    left = Capacity(max_running=1, cache_tokens=2, max_model_len=3)
    assert left.signing_bytes().startswith(b"Capacity\n")
    assert left.signing_bytes() != b"ByteRange\n" + canonical_bytes(left.to_dict())


def test_every_field_is_signed() -> None:
    for name, value in ENTRY.to_dict().items():
        changed: Any = f"{value}x" if isinstance(value, str) else (value or 0) + 1
        assert replace(ENTRY, **{name: changed}).hash() != ENTRY.hash(), name
    assert ENTRY.hash() == hashlib.sha256(ENTRY.signing_bytes()).hexdigest()


def test_signed_entry_needs_both_halves() -> None:
    with pytest.raises((KeyError, ValueError)):
        SignedEntry.from_dict({"entry": ENTRY.to_dict()})
    with pytest.raises(ValueError, match="seq"):
        SignedEntry.from_dict({"entry": {}, "signature": "x"})


def test_manifest_digest_is_of_content_not_of_order() -> None:
    files = {"b": "2", "a": "1"}
    assert manifest_digest(files) == manifest_digest(dict(sorted(files.items())))
    assert manifest_digest(files) != manifest_digest({"b": "2", "a": "3"})


def test_challenge_proof_depends_on_nonce_bytes_and_their_borders() -> None:
    proof = challenge_proof("n", [b"ab", b"c"])
    assert proof == challenge_proof("n", [b"ab", b"c"])
    assert len({proof, challenge_proof("m", [b"ab", b"c"]), challenge_proof("n", [b"a", b"bc"])}) == 3
