"""What became of a request whose receipt did not arrive: the worker's journal tells."""

from __future__ import annotations

import asyncio
from enum import Enum

import msgspec
import structlog

from core.clock import clock
from gateway.exchange import head_bytes
from gateway.flight import Flight
from gateway.plane import Plane
from gateway.upstream import UpstreamError
from inference.messages import SignedEntry
from routing.snapshot import WorkerEntry
from transparency.receipts import signed_entry_parse

_LOG = structlog.get_logger("gateway.resolver")
_ENTRY_BYTES_MAX = 64 * 1024
_WAIT_MIN_S = 0.02
_WAIT_MAX_S = 2.0
_GIVE_UP_MS = 15 * 60 * 1000  # the sweeper takes over


class Silence(Enum):
    """Why there is no entry."""

    MISSING = "the worker has none"
    AWAY = "the worker does not answer"


def resolve_later(plane: Plane, flight: Flight) -> None:
    """End the flight in the background: by the worker's entry, or void when the worker has none."""
    if flight.ended:
        return
    if flight.worker is None or not flight.uncertain:
        plane.settle_void(flight)
        return
    plane.in_background(asyncio.get_running_loop().create_task(_resolve(plane, flight, flight.worker)))


async def journal_ask(plane: Plane, worker: WorkerEntry, request_id: str) -> SignedEntry | Silence:
    """The worker's signed entry for the request, or why there is none."""
    head = head_bytes(plane, worker, "GET", f"/journal/{request_id}")
    try:
        connection = await plane.pool.open(worker.endpoint, head, b"", timeout_s=5.0, quiet_s=5.0)
    except UpstreamError:
        return Silence.AWAY
    try:
        status = None
        while status is None:
            status = await connection.head()
        body = await connection.read_all(_ENTRY_BYTES_MAX)
        plane.pool.release(worker.endpoint, connection)
    except UpstreamError:
        plane.pool.discard(connection)
        return Silence.AWAY
    if status == 404:
        return Silence.MISSING
    try:
        return signed_entry_parse(body) if status == 200 else Silence.AWAY
    except msgspec.DecodeError:
        return Silence.AWAY


async def _resolve(plane: Plane, flight: Flight, worker: WorkerEntry) -> None:
    began_ms = clock.now_ms()
    missing_since_ms: int | None = None
    wait_s = _WAIT_MIN_S
    while clock.now_ms() - began_ms < _GIVE_UP_MS:
        found = await journal_ask(plane, worker, flight.request_id)
        if isinstance(found, SignedEntry):
            flight.ended = True
            plane.settle(flight.settlement(found, output_sha256=None, seen=[]))
            _LOG.info("resolved", request_id=flight.request_id, finish_reason=found.entry.finish_reason)
            return
        if found is Silence.AWAY:
            missing_since_ms = None
        elif missing_since_ms is None:
            missing_since_ms = clock.now_ms()
        elif clock.now_ms() - missing_since_ms > plane.settings.journal_retry_s * 1000:
            plane.settle_void(flight)
            _LOG.info("resolved_void", request_id=flight.request_id, worker_id=worker.worker_id)
            return
        await asyncio.sleep(wait_s)
        wait_s = min(_WAIT_MAX_S, wait_s * 2)
    _LOG.error("left_to_sweeper", request_id=flight.request_id, worker_id=worker.worker_id)
