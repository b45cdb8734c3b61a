"""API keys and other bearer secrets: made here, shown once, stored only as a SHA-256 digest.

A secret carries 256 random bits, so a plain digest cannot be reversed by guessing; slow password hashes
are for passwords. The checksum lets clients and secret scanners reject a mistyped key without a look-up.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass

_FORM = re.compile(r"^tw-[a-z]{2,8}-[0-9a-f]{64}[0-9a-f]{8}$")


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A secret just made: ``plain`` is shown once, ``digest`` (64 hex characters) is stored."""

    plain: str
    digest: str
    display: str


def new_secret(kind: str) -> NewSecret:
    """A bearer secret ``tw-<kind>-<64 hex><8 hex checksum>``; ``kind`` is 2 to 8 lower-case letters."""
    body = f"tw-{kind}-{secrets.token_hex(32)}"
    plain = body + f"{zlib.crc32(body.encode()):08x}"
    if not _FORM.match(plain):
        raise ValueError("kind must be 2 to 8 lower-case letters")
    return NewSecret(plain=plain, digest=digest_secret(plain), display=f"{plain[:10]}…{plain[-4:]}")


def looks_like_secret(plain: str) -> bool:
    """Whether form and checksum are right: a cheap test before any look-up."""
    return bool(_FORM.match(plain)) and f"{zlib.crc32(plain[:-8].encode()):08x}" == plain[-8:]


def digest_secret(plain: str) -> str:
    """SHA-256 of the secret as 64 hex characters: its look-up key."""
    return hashlib.sha256(plain.encode()).hexdigest()


def derive_token(master: str, *parts: str) -> str:
    """A bearer token derived from ``master`` for the named purpose: nothing needs to be stored."""
    return hmac.new(master.encode(), "\x1f".join(parts).encode(), hashlib.sha256).hexdigest()


def same_secret(left: str, right: str) -> bool:
    """Constant-time comparison."""
    return hmac.compare_digest(left.encode(), right.encode())
