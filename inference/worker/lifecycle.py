"""Signals, the parent's death, and the drain before the end."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys

from inference.worker.logs import log_event
from inference.worker.runtime import Runtime

DRAIN_LIMIT_S = 20.0
PARENT_DEATH_VARIABLE = "TOKENWORKS_PARENT_DEATH_SIGNAL"
_PR_SET_PDEATHSIG = 1
_POLL_S = 0.02
_INTERRUPTED_S = 5.0


def parent_death_follow() -> None:
    """Receive SIGTERM when the parent process dies, if the environment asks for it (Linux only)."""
    if os.environ.get(PARENT_DEATH_VARIABLE) != "1" or not sys.platform.startswith("linux"):
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


def stop_signals_watch() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    return stopping


async def runtime_drain(runtime: Runtime, limit_s: float = DRAIN_LIMIT_S) -> None:
    """Take no new requests; those in flight finish within ``limit_s`` or end with an error."""
    runtime.drain()
    log_event("drain_started", in_flight=len(runtime.in_flight))
    if not await _idle(runtime, limit_s):
        log_event("drain_limit_reached", in_flight=len(runtime.in_flight))
        for flight in list(runtime.in_flight.values()):
            flight.interrupt("drain_limit")
        await _idle(runtime, _INTERRUPTED_S)
    log_event("drain_ended", in_flight=len(runtime.in_flight))


async def _idle(runtime: Runtime, limit_s: float) -> bool:
    """Whether nothing is in flight any more within ``limit_s``."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + limit_s
    while runtime.in_flight:
        if loop.time() >= deadline_s:
            return False
        await asyncio.sleep(_POLL_S)
    return True
