"""Signals, the parent's death, and the drain before the end."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time

from inference.parent_death import parent_death_signal
from inference.worker.logs import log_event
from inference.worker.runtime import Runtime

DRAIN_LIMIT_S = 20.0
PARENT_DEATH_VARIABLE = "TOKENWORKS_PARENT_DEATH_SIGNAL"
PARENT_PID_VARIABLE = "TOKENWORKS_PARENT_PID"
_POLL_S = 0.02
_INTERRUPTED_S = 5.0


def parent_death_follow() -> None:
    """Receive SIGTERM when the parent process dies, if the environment asks for it.

    The parent names itself in TOKENWORKS_PARENT_PID, so that its death before this call counts too.
    """
    if os.environ.get(PARENT_DEATH_VARIABLE) != "1":
        return
    parent = int(os.environ.get(PARENT_PID_VARIABLE) or os.getppid())
    if not parent_death_signal(signal.SIGTERM):
        threading.Thread(target=_parent_watch, args=(parent,), name="parent-watch", daemon=True).start()
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGTERM)


def _parent_watch(parent: int) -> None:
    """Where the kernel sends no signal: look once a second."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


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
