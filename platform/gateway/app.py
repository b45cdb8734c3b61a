"""The ASGI application: routes, and what every answer has in common. ``uvicorn gateway.app:app``."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Any

import orjson
import structlog

from core.errors import ApiError, not_found
from core.logs import configure_logs
from gateway.admission import bearer_digest, key_check
from gateway.asgi import ClientGoneError, Receive, Scope, Send, body_read, header, respond, respond_error
from gateway.bodies import Endpoint
from gateway.generation import CLIENT_GONE_STATUS, Call, Http, call_begin, generation_serve
from gateway.headers import JSON_TYPE
from gateway.heartbeats import BODY_BYTES_MAX, heartbeat_take
from gateway.plane import Plane
from gateway.settings import settings_from
from routing.snapshot import Model

_LOG = structlog.get_logger("gateway.app")
_GENERATION: dict[str, Endpoint] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/beta/completions": "completions",
    "/v1/embeddings": "embeddings",
}
_METRICS_TYPE = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_MODELS = "/v1/models"
_ALLOWED = {**dict.fromkeys(_GENERATION, "POST"), "/internal/heartbeat": "POST", _MODELS: "GET"}
_FAULT = ApiError(
    500,
    "The gateway failed. Try again.",
    type="server_error",
    code="internal_error",
    retry_after_ms=1000,
)


class GatewayApp:
    """One process's application; its parts live from the lifespan's startup to its shutdown."""

    def __init__(self) -> None:
        self.plane: Plane | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        endpoint = _GENERATION.get(path)
        call = call_begin(endpoint or "other")
        try:
            if endpoint is not None and scope["method"] == "POST":
                status = await generation_serve(self._running(), endpoint, call, Http(scope, receive, send))
            else:
                status = await self._route(call, scope, receive, send)
        except ApiError as error:
            status = error.status
            await respond_error(send, error, call.headers)
        except ClientGoneError:
            status = CLIENT_GONE_STATUS
        except Exception:
            status = 500
            _LOG.exception("request_failed", request_id=call.request_id, path=path)
            with contextlib.suppress(RuntimeError):  # the response had begun: uvicorn cuts it off
                await respond_error(send, _FAULT, call.headers)
        if self.plane is not None and call.endpoint != "probe":
            _report(self.plane, call, status)

    async def _route(self, call: Call, scope: Scope, receive: Receive, send: Send) -> int:
        path: str = scope["path"]
        match (scope["method"], path):
            case ("GET", "/healthz" | "/readyz" | "/metrics"):
                call.endpoint = "probe"
                return await self._probe(path, call, send)
            case ("POST", "/internal/heartbeat"):
                call.endpoint = "heartbeat"
                await heartbeat_take(self._running(), await body_read(scope, receive, BODY_BYTES_MAX))
                await send({"type": "http.response.start", "status": 204, "headers": call.headers})
                await send({"type": "http.response.body", "body": b""})
                return 204
            case ("GET", _) if path == _MODELS or path.startswith(f"{_MODELS}/"):
                call.endpoint = "models"
                return await self._models(path.removeprefix(_MODELS).lstrip("/"), call, scope, send)
        if path in _ALLOWED:
            raise ApiError(405, f"Use {_ALLOWED[path]} for {path}.", code="method_not_allowed")
        raise not_found(f"There is no endpoint {path[:128]}.")

    async def _probe(self, path: str, call: Call, send: Send) -> int:
        plane = self._running()
        if path == "/metrics":
            await respond(send, 200, plane.metrics.render(), [_METRICS_TYPE, *call.headers])
            return 200
        checks = {"redis": plane.redis.connected, "snapshot": plane.view.snapshot is not None}
        status = 200 if path == "/healthz" or plane.ready else 503
        body = {"status": "ok" if status == 200 else "unavailable", **checks}
        await respond(send, status, orjson.dumps(body), [JSON_TYPE, *call.headers])
        return status

    async def _models(self, name: str, call: Call, scope: Scope, send: Send) -> int:
        plane = self._running()
        key = await key_check(plane.redis, bearer_digest(header(scope, b"authorization")))
        visible = [model for model in plane.view.models() if key.models is None or model.name in key.models]
        if name and name not in {model.name for model in visible}:
            raise not_found(f"The model {name!r} does not exist.", code="model_not_found", param="model")
        body = (
            next(_model_object(model) for model in visible if model.name == name)
            if name
            else {"object": "list", "data": [_model_object(model) for model in visible]}
        )
        await respond(send, 200, orjson.dumps(body), [JSON_TYPE, *call.headers])
        return 200

    def _running(self) -> Plane:
        if self.plane is None:
            raise RuntimeError("the application needs the lifespan protocol")
        return self.plane

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    configure_logs(process="gateway")
                    self.plane = Plane(settings_from(os.environ))
                    await self.plane.start()
                except (OSError, RuntimeError, ValueError) as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                if self.plane is not None:
                    await self.plane.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return


def _model_object(model: Model) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "tokenworks",
        "release_digest": model.release_digest,
        "max_model_len": model.max_model_len,
    }


def _report(plane: Plane, call: Call, status: int) -> None:
    """Log line and metrics of one answered call."""
    now_s = asyncio.get_running_loop().time()
    flight = call.flight
    partner, worker_id, added_s = "", None, None
    if flight is not None and flight.worker is not None:
        partner, worker_id = flight.worker.partner_slug, flight.worker.worker_id
        if flight.sent_s:
            added_s = flight.sent_s - call.began_s
            plane.metrics.added_s.observe(added_s)
        if flight.first_token_at_ms is not None:
            plane.metrics.first_byte_s.observe((flight.first_token_at_ms - flight.received_at_ms) / 1000)
    plane.metrics.answered(endpoint=call.endpoint, status=status, partner=partner)
    if call.endpoint != "heartbeat":
        plane.log.add(
            status=status,
            request_id=call.request_id,
            endpoint=call.endpoint,
            partner=partner or None,
            worker_id=worker_id,
            key_id=flight.key.key_id if flight is not None else None,
            ms=round((now_s - call.began_s) * 1000, 3),
            added_ms=round(added_s * 1000, 3) if added_s is not None else None,
            failovers=len(flight.failovers) if flight is not None else 0,
        )


app = GatewayApp()
