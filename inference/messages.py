"""What crosses between a worker and the control and data planes. Standard library only.

Signed payloads are signed over ``canonical_bytes``: JSON with sorted keys, no spaces, UTF-8, and no floats,
so that both sides derive the same bytes from the same values (the integer subset of RFC 8785).
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, Self

FinishReason = Literal["stop", "length", "cancelled", "error"]
WorkerState = Literal["starting", "ready", "draining"]

HEADER_REQUEST_ID = "x-request-id"
HEADER_CACHE_SALT = "x-tokenworks-cache-salt"
HEADER_PRIORITY = "x-tokenworks-priority"
HEADER_DEADLINE = "x-tokenworks-deadline-ms"
HEADER_ADAPTER = "x-tokenworks-adapter"
HEADER_ROUTING = "x-tokenworks-routing"
HEADER_RECEIPT = "x-tokenworks-receipt"
RECEIPT_EVENT = "receipt"
GENESIS_HASH = "0" * 64
_MAPPED_BYTES = (
    64 << 20
)  # of a file in one go: threads beside it then wait for the interpreter, not it for them
RELEASE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*.json",
    "tiktoken.model",
    "chat_template*",
    "*.safetensors",
    "*.safetensors.index.json",
)


def canonical_bytes(payload: Mapping[str, Any]) -> bytes:
    """The bytes that are hashed and signed. Raises TypeError for floats, keys not text, what JSON lacks."""
    _refuse_floats(payload)
    return json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _refuse_floats(value: object) -> None:
    if isinstance(value, float):
        raise TypeError("signed payloads carry integers and text, never floats")
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError('signed payloads have text keys: 1 and "1" would sign alike')
            _refuse_floats(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _refuse_floats(item)


def _plain(value: Any) -> Any:
    if isinstance(value, _Message):
        return value.to_dict()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True, slots=True)
class _Message:
    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types, nested messages included; lists and dicts are copies."""
        return {name: _plain(getattr(self, name)) for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """The message in ``raw``. Raises ValueError naming missing or unknown fields."""
        known = cls.__dataclass_fields__.keys()
        if raw.keys() != known:
            unknown, missing = sorted(raw.keys() - known), sorted(known - raw.keys())
            raise ValueError(f"{cls.__name__}: unknown fields {unknown}, missing fields {missing}")
        return cls(**raw)

    def signing_bytes(self) -> bytes:
        """Canonical bytes, prefixed with the message's type so no signature fits another type."""
        return type(self).__name__.encode() + b"\n" + canonical_bytes(self.to_dict())


def message_hash(signing_bytes: bytes) -> str:
    """SHA-256 of a message's signing bytes, hex: what the next entry of a journal refers to."""
    return hashlib.sha256(signing_bytes).hexdigest()


@dataclass(frozen=True, slots=True)
class JournalEntry(_Message):
    """One served request in a worker's append-only journal; ``prev_hash`` chains it to the one before.

    ``output_sha256`` is over the UTF-8 text that was shown, all choices in order; a choice's calls of tools
    follow its text, each its name and its arguments.
    Times are milliseconds since the epoch. ``completion_tokens`` counts every token generated.
    """

    seq: int
    prev_hash: str
    worker_id: str
    request_id: str
    model: str
    release_digest: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    finish_reason: FinishReason
    received_at_ms: int
    first_token_at_ms: int | None
    finished_at_ms: int
    output_sha256: str

    def hash(self) -> str:
        """SHA-256 of the signing bytes, hex: the next entry's ``prev_hash``."""
        return message_hash(self.signing_bytes())


@dataclass(frozen=True, slots=True)
class SignedEntry:
    """A journal entry with the worker's Ed25519 signature (base64) over its signing bytes."""

    entry: JournalEntry
    signature: str

    def to_dict(self) -> dict[str, Any]:
        """``{"entry": {...}, "signature": "..."}``."""
        return {"entry": self.entry.to_dict(), "signature": self.signature}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """The inverse of ``to_dict``. Raises ValueError or KeyError when malformed."""
        return cls(entry=JournalEntry.from_dict(raw["entry"]), signature=str(raw["signature"]))


@dataclass(frozen=True, slots=True)
class Capacity(_Message):
    """What a worker can hold: sequences decoded together, and tokens in its latent cache."""

    max_running: int
    cache_tokens: int
    max_model_len: int


@dataclass(frozen=True, slots=True)
class ByteRange(_Message):
    """A slice of one release file, asked for in an enrolment challenge."""

    path: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class EnrolRequest(_Message):
    """Sent to ``POST /api/workers/enrol``; signed by the key it introduces (possession proof).

    ``proof`` answers the challenge: hex SHA-256 over ``nonce`` and the bytes of each range, in order.
    """

    token: str
    nonce: str
    name: str
    endpoint: str
    public_key: str
    release: str
    release_digest: str
    proof: str
    capacity: dict[str, int]


@dataclass(frozen=True, slots=True)
class Enrolment(_Message):
    """The answer: who the worker now is, the bearer its callers will show, and where to report."""

    worker_id: str
    pool_id: str
    partner_id: str
    dispatch_token: str
    gateway_urls: list[str]
    heartbeat_interval_ms: int


@dataclass(frozen=True, slots=True)
class Heartbeat(_Message):
    """Signed load report to ``POST /internal/heartbeat`` of a gateway; ``seq`` grows, replays are refused."""

    worker_id: str
    seq: int
    at_ms: int
    state: WorkerState
    release_digest: str
    running: int
    queued: int
    max_running: int
    pages_free: int
    pages_total: int


def release_manifest(model_dir: Path) -> dict[str, str]:
    """``{file name: sha256 hex}`` of the files that define a release, in name order.

    Those are the regular files directly in ``model_dir`` whose name fits RELEASE_FILES: configuration,
    tokenizer, chat template and weights. Hidden files, model card, pictures and sub-folders are left out,
    so a corrected README is not a new release. Raises ValueError when config or weights are missing.
    """
    names = sorted(
        path.name
        for path in model_dir.iterdir()
        if path.is_file()
        and not path.name.startswith(".")
        and any(fnmatchcase(path.name, pattern) for pattern in RELEASE_FILES)
    )
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise ValueError(f"{model_dir.name} is no release: config.json and *.safetensors are needed")
    return {name: _file_sha256(model_dir / name) for name in names}


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for start in range(0, size, _MAPPED_BYTES):
            length = min(_MAPPED_BYTES, size - start)
            with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=start) as mapped:
                digest.update(mapped)
    return digest.hexdigest()


def manifest_digest(files: Mapping[str, str]) -> str:
    """Release digest: SHA-256 over the canonical ``{relative path: sha256 hex}`` of its files."""
    return hashlib.sha256(canonical_bytes(dict(files))).hexdigest()


def challenge_proof(nonce: str, chunks: list[bytes]) -> str:
    """Answer to an enrolment challenge: SHA-256 over the nonce, then each chunk's length and bytes."""
    digest = hashlib.sha256(nonce.encode())
    for chunk in chunks:
        digest.update(len(chunk).to_bytes(8, "big"))
        digest.update(chunk)
    return digest.hexdigest()
