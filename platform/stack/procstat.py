"""CPU and memory of a process, read from /proc; unknown (None) where there is none."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def is_running(pid: int) -> bool:
    """Whether ``pid`` runs; a corpse that nobody has collected yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class Usage:
    """``cpu_percent`` of one core since the last look (None at the first), resident memory in bytes."""

    cpu_percent: float | None
    rss_bytes: int


class UsageMeter:
    """Remembers what each process had used when it was last asked."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[float, int]] = {}

    def read(self, pid: int | None) -> Usage | None:
        """Usage of ``pid`` now, or None when it is gone."""
        if pid is None:
            return None
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            rss_pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            self._last.pop(pid, None)
            return None
        ticks, now = int(fields[11]) + int(fields[12]), time.monotonic()
        before = self._last.get(pid)
        self._last[pid] = (now, ticks)
        cpu = None
        if before is not None and now > before[0]:
            cpu = 100 * (ticks - before[1]) / _TICKS_PER_S / (now - before[0])
        return Usage(cpu_percent=cpu, rss_bytes=rss_pages * os.sysconf("SC_PAGE_SIZE"))
