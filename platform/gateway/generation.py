"""One generation, from the request's bytes to its last: the flow of the data plane in one function."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import NamedTuple

from core.clock import clock
from core.errors import ApiError
from core.ids import new_id
from gateway.admission import (
    AdmissionError,
    AdmissionUnknownError,
    Admitted,
    admit,
    away,
    bearer_digest,
    key_check,
)
from gateway.asgi import Client, ClientGoneError, Receive, Scope, Send, body_read, header
from gateway.bodies import Endpoint
from gateway.exchange import Exchange, upstream_lost
from gateway.flight import Flight
from gateway.headers import Header
from gateway.plan import Plan, plan_make
from gateway.plane import Plane
from gateway.resolver import resolve_later
from gateway.streams import stream_serve
from gateway.upstream import UpstreamError
from gateway.wholes import whole_serve

CLIENT_GONE_STATUS = 499  # for log and metrics: nobody was left to answer


class Http(NamedTuple):
    """The ASGI triple of one request."""

    scope: Scope
    receive: Receive
    send: Send


@dataclass(slots=True)
class Call:
    """What a call is remembered by in log and metrics. ``headers`` belong to every answer, errors too."""

    endpoint: str
    request_id: str
    began_s: float
    headers: list[Header]
    flight: Flight | None = None


def call_begin(endpoint: str) -> Call:
    """A call that arrived just now."""
    request_id = new_id("req")
    return Call(
        endpoint=endpoint,
        request_id=request_id,
        began_s=asyncio.get_running_loop().time(),
        headers=[(b"x-request-id", request_id.encode())],
    )


async def generation_serve(plane: Plane, endpoint: Endpoint, call: Call, http: Http) -> int:
    """Serve one chat or completion; its status. Raises ApiError while the client has got nothing."""
    now_ms = clock.now_ms()
    digest = bearer_digest(header(http.scope, b"authorization"))
    try:
        body = await body_read(http.scope, http.receive, plane.settings.body_bytes_max)
        plan = plan_make(plane, endpoint, body, request_id=call.request_id, now_ms=now_ms)
    except ApiError as error:
        await key_check(plane.redis, digest)  # who has no key learns nothing else
        raise error from None
    admitted = await _admit(plane, call, plan, digest)
    call.headers += admitted.figures.headers()
    flight = call.flight = Flight(
        request_id=call.request_id,
        received_at_ms=now_ms,
        ask=plan.ask,
        model=plan.model,
        bounds=plan.bounds,
        decision=plan.decision,
        decision_json=plan.decision_json,
        decision_digest=plan.decision_digest,
        key=admitted.key,
        gateway_id=plane.settings.gateway_id,
    )
    client = Client(http.receive)
    client.watch()
    exchange = Exchange(plane, flight, client, http.send, call.headers, plan.body)
    try:
        return await (stream_serve(exchange) if plan.ask.stream else whole_serve(exchange))
    except ClientGoneError:
        return CLIENT_GONE_STATUS
    except UpstreamError as error:
        raise upstream_lost(error) from None
    finally:
        resolve_later(plane, flight)


async def _admit(plane: Plane, call: Call, plan: Plan, digest: str) -> Admitted:
    try:
        return await admit(
            plane.redis,
            digest=digest,
            request_id=call.request_id,
            amount_nano=plan.amount_nano,
            tokens=plan.bounds.prompt_tokens_max + plan.bounds.completion_tokens_max,
            gateway_id=plane.life_id,
            context=plan.context,
            model=plan.model.name,
        )
    except AdmissionUnknownError:
        plane.settle_unknown(call.request_id)
        raise away() from None
    except AdmissionError as error:
        if error.figures is not None:
            call.headers += error.figures.headers()
        raise
    except asyncio.CancelledError:
        plane.settle_unknown(call.request_id)
        raise
