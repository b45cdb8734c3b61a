"""Processes of the gateway bench: started on chosen cores, and what they use."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cpu_s(pid: int) -> float:
    """CPU seconds a process has used, threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mib(pid: int) -> float:
    """Resident memory of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def process(
    module: list[str], cores: set[int], environ: dict[str, str] | None = None, stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A Python module as a process of its own, pinned to ``cores``, gone afterwards."""
    running = subprocess.Popen(
        [sys.executable, "-m", *module],
        env={**os.environ, **(environ or {})},
        stdout=stdout,
        stderr=subprocess.DEVNULL,
    )
    try:
        os.sched_setaffinity(running.pid, cores)
        yield running
    finally:
        running.kill()
        running.wait()
