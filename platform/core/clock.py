"""The one clock. Business code asks it for the time; tests freeze and move it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def epoch_ms(moment: datetime) -> int:
    """Whole milliseconds from the epoch to ``moment`` (timezone-aware), exact: no float is involved."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


class Clock:
    """Wall clock in UTC, real until it is frozen."""

    def __init__(self) -> None:
        self._frozen_at: datetime | None = None

    def now(self) -> datetime:
        """Current time, timezone-aware, UTC."""
        return self._frozen_at or datetime.now(UTC)

    def now_ms(self) -> int:
        """Current time in whole milliseconds since the epoch."""
        if self._frozen_at is not None:
            return epoch_ms(self._frozen_at)
        return time.time_ns() // 1_000_000

    def advance(self, delta: timedelta) -> None:
        """Move a frozen clock. Raises RuntimeError when the clock runs freely."""
        if self._frozen_at is None:
            raise RuntimeError("only a frozen clock can be advanced")
        self._frozen_at += delta

    @contextmanager
    def frozen(self, at: datetime) -> Iterator[Clock]:
        """Hold the time at ``at`` (timezone-aware) for the duration of the block."""
        if at.tzinfo is None:
            raise ValueError("frozen time must be timezone-aware")
        before = self._frozen_at
        self._frozen_at = at.astimezone(UTC)
        try:
            yield self
        finally:
            self._frozen_at = before


clock = Clock()
