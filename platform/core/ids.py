"""Typed, sortable identifiers: ``prefix_`` + 26 characters (48-bit milliseconds, 80 random bits).

The layout is ULID's (Crockford base32, lower case), so ids sort by creation time as text.
"""

from __future__ import annotations

import secrets

from core.clock import clock

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_BODY_CHARS = 26

PREFIXES = frozenset(
    {
        "acc", "aud", "chr", "enr", "gw", "key", "mem", "off", "par", "pol", "prj", "rel",
        "req", "ten", "trf", "usr", "wrk",
    }
)  # fmt: skip


def new_id(prefix: str) -> str:
    """A fresh id such as ``req_01jd…``. Raises ValueError for a prefix that is not registered."""
    if prefix not in PREFIXES:
        raise ValueError(f"unknown id prefix {prefix!r}")
    value = (clock.now_ms() << 80) | secrets.randbits(80)
    chars = [_ALPHABET[(value >> shift) & 31] for shift in range(5 * (_BODY_CHARS - 1), -1, -5)]
    return f"{prefix}_{''.join(chars)}"


def is_id(text: str, prefix: str) -> bool:
    """Whether ``text`` is a well-formed id with ``prefix``."""
    head, _, body = text.partition("_")
    return head == prefix and len(body) == _BODY_CHARS and all(char in _ALPHABET for char in body)


def id_time_ms(text: str) -> int:
    """Creation time in milliseconds since the epoch, read back from an id."""
    body = text.partition("_")[2]
    value = 0
    for char in body:
        value = (value << 5) | _ALPHABET.index(char)
    return value >> 80
