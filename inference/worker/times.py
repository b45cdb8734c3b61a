"""The wall clock, as the journal writes it."""

from __future__ import annotations

import time


def now_ms() -> int:
    """Whole milliseconds since the epoch."""
    return time.time_ns() // 1_000_000
