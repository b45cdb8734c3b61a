"""Typed, sortable identifiers: ``prefix_`` + 26 characters (48-bit milliseconds, 79 random bits).

The layout is ULID's (Crockford base32, lower case), so ids sort by creation time as text.
"""

from __future__ import annotations

import re
import secrets
from functools import lru_cache

from core.clock import clock

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_BODY = re.compile(f"[{_ALPHABET}]{{26}}")
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]

PREFIXES = frozenset(
    {
        "acc", "aud", "chr", "enr", "gw", "key", "mem", "off", "par", "pol", "prj", "rel",
        "req", "ten", "trf", "usr", "wrk",
    }
)  # fmt: skip


def new_id(prefix: str) -> str:
    """A fresh id such as ``req_01jd…``. Raises ValueError for a prefix that is not registered."""
    return new_ids(prefix, 1)[0]


def new_ids(prefix: str, count: int) -> list[str]:
    """``count`` fresh ids in ascending order: one random start, then one up each (kind to indexes)."""
    if prefix not in PREFIXES:
        raise ValueError(f"unknown id prefix {prefix!r}")
    head = f"{prefix}_{_time_chars(clock.now_ms())}"
    start = secrets.randbits(79)  # the 80th bit is room to count up
    return [head + _random_chars(start + step) for step in range(count)]


def id_floor(prefix: str, at_ms: int) -> str:
    """The smallest id that can be made at ``at_ms``: bounds a range of ids by time."""
    return f"{prefix}_{_time_chars(at_ms)}{_random_chars(0)}"


@lru_cache(maxsize=8)
def _time_chars(now_ms: int) -> str:
    return "".join(_ALPHABET[(now_ms >> shift) & 31] for shift in range(45, -1, -5))


def _random_chars(bits: int) -> str:
    return "".join([_PAIRS[(bits >> shift) & 1023] for shift in (70, 60, 50, 40, 30, 20, 10, 0)])


def is_id(text: str, prefix: str) -> bool:
    """Whether ``text`` is a well-formed id with ``prefix``."""
    head, _, body = text.partition("_")
    return head == prefix and _BODY.fullmatch(body) is not None


def id_time_ms(text: str) -> int:
    """Creation time in milliseconds since the epoch, read back from an id."""
    body = text.partition("_")[2]
    value = 0
    for char in body:
        value = (value << 5) | _ALPHABET.index(char)
    return value >> 80
