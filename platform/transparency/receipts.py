"""Receipts: a worker's signed journal entry, countersigned by the gateway that relayed it. Pure functions.

::

    Receipt
    ├── entry, worker_signature, worker_public_key        what the worker says it served
    └── gateway, gateway_signature, gateway_public_key    what the gateway saw, and charged for

Signatures are Ed25519 over a type name, a line feed and canonical JSON (sorted keys, no spaces, UTF-8).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec

from core.signing import SigningKey, signature_is_valid
from inference.messages import JournalEntry, SignedEntry

_CANONICAL = msgspec.json.Encoder(order="sorted")
_SIGNED_ENTRY = msgspec.json.Decoder(SignedEntry)


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """The worst case a hold was made for: no honest worker can count more."""

    prompt_tokens_max: int
    completion_tokens_max: int


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway's side. ``price`` and ``charge`` are billing's Price and Charge as plain integers and text.

    Token counts are those settled. ``output_sha256`` is the gateway's own hash where it saw whole text, else
    None. ``problems`` lists why the receipt is disputed; empty means it is not.
    """

    gateway_id: str
    request_id: str
    tenant_id: str
    entry_hash: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    price: dict[str, int | str]
    charge: dict[str, int]
    relayed_frames: int
    output_sha256: str | None
    decision_digest: str
    problems: tuple[str, ...] = ()

    def signing_bytes(self) -> bytes:
        """What the gateway signs."""
        return b"Statement\n" + _CANONICAL.encode(self)


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """Both witnesses of one request; the gateway's half is None when a sweeper settled from the worker's."""

    entry: JournalEntry
    worker_signature: str
    worker_public_key: str
    gateway: Statement | None = None
    gateway_signature: str | None = None
    gateway_public_key: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, as ``UsageEvent.receipt`` carries it."""
        raw: dict[str, Any] = msgspec.to_builtins(self)
        return raw


def signed_entry_parse(raw: bytes) -> SignedEntry:
    """The signed entry in a worker's frame, header or journal. Raises msgspec.DecodeError, whatever it is."""
    try:
        return _SIGNED_ENTRY.decode(raw)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None


def entry_signing_bytes(entry: JournalEntry) -> bytes:
    """``entry.signing_bytes()``, ten times faster; a test holds the two together."""
    return b"JournalEntry\n" + _CANONICAL.encode(entry)


def entry_problems(
    entry: JournalEntry,
    *,
    request_id: str,
    worker_id: str,
    model: str,
    release_digest: str,
    bounds: Bounds,
    max_model_len: int | None = None,
) -> list[str]:
    """Codes of everything in the entry that cannot be true of this request."""
    checks = (
        (entry.request_id == request_id, "request_id_mismatch"),
        (entry.worker_id == worker_id, "worker_mismatch"),
        (entry.model == model, "model_mismatch"),
        (entry.release_digest == release_digest, "release_mismatch"),
        (0 <= entry.cached_tokens <= entry.prompt_tokens, "cached_tokens_implausible"),
        (0 <= entry.prompt_tokens <= bounds.prompt_tokens_max, "prompt_tokens_implausible"),
        (0 <= entry.completion_tokens <= bounds.completion_tokens_max, "completion_tokens_implausible"),
        (
            max_model_len is None or entry.prompt_tokens + entry.completion_tokens <= max_model_len,
            "context_exceeded",
        ),
        (entry.received_at_ms <= entry.finished_at_ms, "times_implausible"),
    )
    return [code for holds, code in checks if not holds]


def settled_tokens(entry: JournalEntry, bounds: Bounds) -> tuple[int, int, int]:
    """Prompt, cached and completion tokens to charge: the worker's counts, never above the bounds."""
    prompt = max(0, min(entry.prompt_tokens, bounds.prompt_tokens_max))
    cached = max(0, min(entry.cached_tokens, prompt))
    completion = max(0, min(entry.completion_tokens, bounds.completion_tokens_max))
    return prompt, cached, completion


def receipt_countersign(receipt: Receipt, key: SigningKey) -> Receipt:
    """Check the worker's signature, note a problem if it fails, and add the gateway's signature."""
    statement = receipt.gateway
    if statement is None:
        raise ValueError("a receipt without the gateway's statement cannot be countersigned")
    message = entry_signing_bytes(receipt.entry)
    problems = list(statement.problems)
    if not signature_is_valid(
        public_text=receipt.worker_public_key, message=message, signature=receipt.worker_signature
    ):
        problems.append("worker_signature_invalid")
    statement = msgspec.structs.replace(
        statement, entry_hash=hashlib.sha256(message).hexdigest(), problems=tuple(problems)
    )
    return msgspec.structs.replace(
        receipt,
        gateway=statement,
        gateway_signature=key.sign(statement.signing_bytes()),
        gateway_public_key=key.public_text,
    )


def receipt_parse(raw: Mapping[str, Any]) -> Receipt:
    """The receipt in plain JSON types. Raises msgspec.ValidationError."""
    return msgspec.convert(raw, Receipt)


def verify(receipt: Receipt | Mapping[str, Any]) -> list[str]:
    """Codes of all problems, those the gateway noted included; an empty list is a sound receipt.

    Whether ``charge`` follows from ``price`` is billing's to check (``billing.rating.charge_for``); whether
    the public keys belong to an enrolled worker and gateway is the directory's.
    """
    if not isinstance(receipt, Receipt):
        try:
            receipt = receipt_parse(receipt)
        except msgspec.ValidationError as error:
            return [f"malformed: {error}"]
    message = entry_signing_bytes(receipt.entry)
    problems = []
    if not signature_is_valid(
        public_text=receipt.worker_public_key, message=message, signature=receipt.worker_signature
    ):
        problems.append("worker_signature_invalid")
    if receipt.gateway is not None:
        entry_hash = hashlib.sha256(message).hexdigest()
        problems += _statement_problems(receipt, receipt.gateway, entry_hash)
    return list(dict.fromkeys(problems))


def _statement_problems(receipt: Receipt, statement: Statement, entry_hash: str) -> list[str]:
    entry, charge = receipt.entry, statement.charge
    signed = signature_is_valid(
        public_text=receipt.gateway_public_key or "",
        message=statement.signing_bytes(),
        signature=receipt.gateway_signature or "",
    )
    total = charge.get("share_nano", 0) + charge.get("levy_nano", 0)
    checks = (
        (signed, "gateway_signature_invalid"),
        (statement.entry_hash == entry_hash, "entry_hash_mismatch"),
        (statement.request_id == entry.request_id, "request_id_mismatch"),
        (statement.prompt_tokens <= entry.prompt_tokens, "charged_more_than_served"),
        (statement.completion_tokens <= entry.completion_tokens, "charged_more_than_served"),
        (0 <= statement.cached_tokens <= statement.prompt_tokens, "cached_tokens_implausible"),
        (charge.get("charge_nano") == total, "charge_unbalanced"),
    )
    return [code for holds, code in checks if not holds] + list(statement.problems)
