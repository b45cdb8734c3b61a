"""One request between its client and its worker: what dispatch and the two kinds of answers share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson

from core.errors import ApiError
from gateway.asgi import Client, Send
from gateway.flight import Flight
from gateway.headers import Header
from gateway.plane import Plane
from gateway.upstream import UpstreamConnection, UpstreamError
from routing.snapshot import WorkerEntry

_REFUSALS = frozenset({400, 409, 413, 422})


@dataclass(slots=True)
class Exchange:
    """``body`` is what the worker gets, ``headers`` those that every answer to the client carries."""

    plane: Plane
    flight: Flight
    client: Client
    send: Send
    headers: Sequence[Header]
    body: bytes

    def finish(self) -> None:
        """The worker has done its part, completely or not; its connection is kept if it can serve again."""
        connection, self.client.connection = self.client.connection, None
        worker = self.flight.worker
        if worker is None:
            return
        self.plane.view.ended(worker.worker_id)
        if connection is not None:
            self.plane.pool.release(worker.endpoint, connection)

    def worker_headers(self) -> list[Header]:
        """Who serves the request, and why."""
        flight = self.flight
        if flight.worker is None:
            return []
        reason = flight.decision.reason
        if flight.failovers:
            reason = f"failed over {len(flight.failovers)}x; first choice by {reason}"
        return [
            (b"x-tokenworks-partner", flight.worker.partner_slug.encode()),
            (b"x-tokenworks-worker", flight.worker.worker_id.encode()),
            (b"x-tokenworks-reason", reason.encode("ascii", "replace")),
        ]


@dataclass(slots=True)
class Answer:
    """A worker's answer under way: its status and, of a stream, the first bytes of its body."""

    connection: UpstreamConnection
    status: int
    first: bytes = b""


def head_bytes(plane: Plane, worker: WorkerEntry, method: str, path: str, extra: str = "") -> bytes:
    """Request line and headers for ``worker``, open for the content length."""
    base, authority = plane.pool.path(worker.endpoint), plane.pool.authority(worker.endpoint)
    token = plane.dispatch_token(worker.worker_id)
    head = f"{method} {base}{path} HTTP/1.1\r\nhost: {authority}\r\nauthorization: Bearer {token}\r\n"
    return (head + extra).encode()


def worker_error(status: int, body: bytes) -> ApiError:
    """A worker's refusal as the client gets it: its four fields, or a clear fault when it is no refusal."""
    try:
        fields = orjson.loads(body)["error"]
        if status in _REFUSALS:
            return ApiError(
                status,
                str(fields["message"]),
                type=str(fields["type"]),
                code=fields.get("code"),
                param=fields.get("param"),
            )
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    message = "The worker serving this request failed. Try again."
    return ApiError(500, message, type="server_error", code="worker_fault", retry_after_ms=1000)


def upstream_lost(error: UpstreamError) -> ApiError:
    """What the client is told when a worker is lost: nothing it did, safe to retry, paid only as produced."""
    message = f"The worker serving this request was lost ({error}). You pay for what was produced. Try again."
    return ApiError(
        503, message, type="server_error", code="insufficient_system_resource", retry_after_ms=1000
    )
