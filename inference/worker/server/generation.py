"""One generation from the request to its receipt."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from inference.engine.types import GenerationRequest, RequestRejected, TokenEvent
from inference.messages import HEADER_REQUEST_ID, SignedEntry
from inference.worker.logs import log_event
from inference.worker.prompts import duplicate, rejection_refusal, request_prepare
from inference.worker.protocol.calls import Call, Endpoint
from inference.worker.protocol.frames import Heading
from inference.worker.protocol.parse import call_parse
from inference.worker.refusal import RefusalError, fault, invalid, overloaded
from inference.worker.runtime import Runtime
from inference.worker.server.asgi import Receive, Scope, Send, body_read, header
from inference.worker.server.flight import Flight
from inference.worker.server.record import flight_journal
from inference.worker.server.scopes import (
    CLIENT_GONE,
    background,
    current_task,
    keep_alive,
    registered,
    watching,
)
from inference.worker.server.writers import StreamWriter, WholeWriter, Writer
from inference.worker.times import now_ms

_REQUEST_ID = re.compile(r"req_[0-9a-z]{1,64}")


async def generation_serve(
    runtime: Runtime, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send
) -> None:
    """Serve one request. Raises RefusalError while nothing was started and nothing was sent."""
    received_at_ms = now_ms()
    runtime.require_bearer(header(scope, b"authorization"))
    runtime.serving()
    request_id = _request_id(scope)
    call = call_parse(endpoint, await body_read(scope, receive))
    if call.model != runtime.release:
        message = f"The model {call.model!r} is not served here."
        raise RefusalError(404, message, param="model", code="model_not_found")
    service = runtime.serving()
    request = await request_prepare(call, request_id, service.engine)
    flight = Flight(request_id, endpoint, received_at_ms, current_task())
    events = _admit(runtime, request)
    writer = _writer(call, send, flight, service.release_digest)
    with registered(runtime, flight), watching(receive, flight):
        last_text = await _relay(flight, events, writer, runtime)
        signed = flight_journal(service, flight, runtime)
        if flight.cause != CLIENT_GONE:
            await _conclude(flight, writer, last_text, signed)


def _admit(runtime: Runtime, request: GenerationRequest) -> AsyncGenerator[TokenEvent, None]:
    """Give the request to the engine, unless its id was seen before or the worker stopped taking work."""
    service = runtime.serving()
    if request.request_id in runtime.in_flight or request.request_id in service.journal:
        raise duplicate()
    try:
        return service.engine.generate(request)
    except RequestRejected as error:
        if error.code == "engine_closed":
            runtime.fail("The engine stopped.")
        raise rejection_refusal(error) from None


async def _relay(
    flight: Flight, events: AsyncGenerator[TokenEvent, None], writer: Writer, runtime: Runtime
) -> str:
    """Pass events on until the last one, whose text is returned; it leaves together with the receipt."""
    text = ""
    try:
        with background(keep_alive(writer)) as keeper:
            async with aclosing(events):
                async for event in events:
                    keeper.cancel()
                    flight.record(event, runtime.metrics)
                    if event.finish_reason is not None:
                        text = event.text
                        break
                    await writer.text(event.text)
        flight.seal("error")
    except asyncio.CancelledError:
        flight.seal("cancelled")
        current_task().uncancel()
    except RequestRejected as error:
        raise rejection_refusal(error) from None
    except Exception as error:
        flight.seal("error")
        log_event("generation_failed", level=logging.ERROR, error=error, request_id=flight.request_id)
    return text


async def _conclude(flight: Flight, writer: Writer, text: str, signed: SignedEntry | None) -> None:
    if signed is None:
        await writer.fail(fault("The worker could not record this request; it is not charged."), None)
    elif flight.finish_reason == "cancelled":
        await writer.fail(_stopped(flight), signed)
    elif flight.finish_reason == "error":
        await writer.fail(fault("The worker failed while it generated the answer. Try again."), signed)
    else:
        await writer.finish(text, flight.finish_reason or "stop", flight.usage(), signed)


def _stopped(flight: Flight) -> RefusalError:
    """503 only while nothing was produced: then another worker may take the same request."""
    message = "The worker stopped before the answer was complete. Try again."
    if flight.first_token_at_ms is None:
        return overloaded(message)
    return RefusalError(500, message, type="server_error", code="insufficient_system_resource")


def _writer(call: Call, send: Send, flight: Flight, release_digest: str) -> Writer:
    heading = Heading(
        endpoint=call.endpoint,
        request_id=flight.request_id,
        created=flight.received_at_ms // 1000,
        model=call.model,
        fingerprint=f"fp_{release_digest[:12]}",
    )
    if call.stream:
        return StreamWriter(send, heading, include_usage=call.include_usage)
    return WholeWriter(send, heading)


def _request_id(scope: Scope) -> str:
    request_id = header(scope, HEADER_REQUEST_ID.encode()) or ""
    if not _REQUEST_ID.fullmatch(request_id):
        raise invalid(
            f"The header {HEADER_REQUEST_ID} must carry a request id such as req_….",
            code="invalid_request_id",
        )
    return request_id
