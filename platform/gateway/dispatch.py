"""To a worker: send the request, and go on to the next candidate while nothing has come back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from core.errors import overloaded
from gateway.asgi import ClientGoneError
from gateway.exchange import Answer, Exchange, head_bytes
from gateway.upstream import UpstreamError
from inference.messages import HEADER_CACHE_SALT, HEADER_REQUEST_ID
from routing.snapshot import WorkerEntry

_LOG = structlog.get_logger("gateway.dispatch")
_PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
}
_NEXT_STATUSES = frozenset({401, 403, 404, 503})  # nothing was served, and it is no fault of the client's

OnTick = Callable[[], Awaitable[None]]


async def dispatch(exchange: Exchange, on_tick: OnTick) -> Answer:
    """The first answer of a ranked worker; ``on_tick`` is awaited while nothing comes.

    On return ``flight.worker`` has the request and counts as busy until ``exchange.finish``. Raises ApiError
    (503) when nobody took it, UpstreamError on a time-out, ClientGoneError.
    """
    plane, flight, client = exchange.plane, exchange.flight, exchange.client
    tried, retry_after_ms = 0, b"1000"
    for worker_id in flight.decision.ranked:
        worker = plane.view.worker(worker_id)
        if worker is None or tried == plane.settings.attempts_max:
            continue
        tried += 1
        flight.worker = worker
        plane.view.began(worker_id)
        try:
            answer = await _attempt(exchange, worker, on_tick)
        except UpstreamError as error:
            exchange.finish()
            if client.gone:
                raise ClientGoneError from None
            if error.timed_out:
                raise
            _note_failover(exchange, worker, str(error))
            continue
        except BaseException:
            exchange.finish()
            raise
        if answer.status not in _NEXT_STATUSES:
            return answer
        retry_after_ms = answer.connection.headers.get(b"retry-after-ms", retry_after_ms)
        exchange.finish()
        _note_failover(exchange, worker, f"status {answer.status}")
    raise overloaded(
        f"No worker can take this request now ({tried} tried). Try again shortly.",
        retry_after_ms=int(retry_after_ms) if retry_after_ms.isdigit() else 1000,
    )


async def _attempt(exchange: Exchange, worker: WorkerEntry, on_tick: OnTick) -> Answer:
    client = exchange.client
    try:
        return await _ask(exchange, worker, on_tick, fresh=False)
    except UpstreamError as error:
        connection = client.connection
        if connection is None or not connection.reused or connection.response_began:
            raise
        if client.gone or error.timed_out:
            raise
        exchange.plane.pool.discard(connection)
        client.connection = None
    # the worker had closed an idle connection just then: ask once more on a fresh one
    return await _ask(exchange, worker, on_tick, fresh=True)


async def _ask(exchange: Exchange, worker: WorkerEntry, on_tick: OnTick, *, fresh: bool) -> Answer:
    plane, flight, settings = exchange.plane, exchange.flight, exchange.plane.settings
    extra = (
        f"content-type: application/json\r\n{HEADER_REQUEST_ID}: {flight.request_id}\r\n"
        f"{HEADER_CACHE_SALT}: {plane.cache_salt(flight.key.tenant_id)}\r\n"
    )
    try:
        connection = await plane.pool.open(
            worker.endpoint,
            head_bytes(plane, worker, "POST", _PATHS[flight.ask.endpoint], extra),
            exchange.body,
            timeout_s=settings.whole_timeout_s,
            quiet_s=settings.quiet_timeout_s if flight.ask.stream else settings.whole_timeout_s,
            fresh=fresh,
        )
    except UpstreamError:
        plane.view.mark_unreachable(worker.worker_id, settings.unreachable_s)
        raise
    exchange.client.connection = connection
    if exchange.client.gone:
        connection.abort("the client is gone")
    flight.sent_s = connection.active_at
    flight.uncertain = True
    while (status := await connection.head()) is None:
        await on_tick()
    flight.headed_s = connection.active_at
    flight.uncertain = status == 200 or status >= 500
    answer = Answer(connection=connection, status=status)
    if status == 200 and flight.ask.stream:
        while (first := await connection.read()) is None:
            await on_tick()
        answer.first = first
    return answer


def _note_failover(exchange: Exchange, worker: WorkerEntry, why: str) -> None:
    flight = exchange.flight
    flight.failovers.append({"worker_id": worker.worker_id, "partner": worker.partner_slug, "why": why})
    exchange.plane.metrics.failed_over(worker.partner_slug)
    _LOG.warning("failed_over", request_id=flight.request_id, worker_id=worker.worker_id, why=why)
