"""Routes of the worker."""

from __future__ import annotations

import logging

from inference.worker.logs import log_event
from inference.worker.refusal import RefusalError, fault
from inference.worker.runtime import Runtime
from inference.worker.server.adapters import adapter_delete, adapter_put, adapters_list
from inference.worker.server.asgi import (
    ClientGoneError,
    Receive,
    Scope,
    Send,
    header,
    respond,
    respond_json,
    respond_refusal,
)
from inference.worker.server.generation import generation_serve
from inference.worker.server.journal_routes import journal_entry, journal_page

_METRICS_TYPE = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_JOURNAL = "/journal"
_ADAPTERS = "/adapters"


class WorkerApp:
    """The ASGI application. All but ``/healthz``, ``/readyz`` and ``/metrics`` needs the bearer."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._route(scope, receive, send)
        except RefusalError as refusal:
            self._runtime.metrics.refusals.labels(str(refusal.status)).inc()
            await respond_refusal(send, refusal)
        except ClientGoneError:
            return
        except Exception as error:
            log_event("request_failed", level=logging.ERROR, error=error, path=scope["path"])
            await respond_refusal(send, fault("The worker failed. Try again."))

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        match (scope["method"], path):
            case ("POST", "/v1/chat/completions"):
                await generation_serve(self._runtime, "chat", scope, receive, send)
            case ("POST", "/v1/completions"):
                await generation_serve(self._runtime, "completions", scope, receive, send)
            case ("POST", "/v1/embeddings"):
                await generation_serve(self._runtime, "embeddings", scope, receive, send)
            case ("GET", "/healthz"):
                await respond_json(send, 200, {"status": "ok"})
            case ("GET", "/readyz"):
                await self._readyz(send)
            case ("GET", "/metrics"):
                await respond(send, 200, self._runtime.metrics.render(), [_METRICS_TYPE])
            case _:
                await self._route_private(scope, receive, send)

    async def _route_private(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        self._runtime.require_bearer(header(scope, b"authorization"))
        match (scope["method"], path):
            case ("GET", "/journal"):
                await journal_page(self._runtime, scope, receive, send)
            case ("GET", _) if path.startswith(f"{_JOURNAL}/"):
                await journal_entry(self._runtime, path.removeprefix(f"{_JOURNAL}/"), send)
            case ("GET", "/adapters"):
                await adapters_list(self._runtime, send)
            case ("PUT", _) if path.startswith(f"{_ADAPTERS}/"):
                await adapter_put(self._runtime, path.removeprefix(f"{_ADAPTERS}/"), send)
            case ("DELETE", _) if path.startswith(f"{_ADAPTERS}/"):
                await adapter_delete(self._runtime, path.removeprefix(f"{_ADAPTERS}/"), send)
            case ("POST", "/drain"):
                self._runtime.drain()
                log_event("drain_requested", in_flight=len(self._runtime.in_flight))
                await respond_json(
                    send, 202, {"state": "draining", "in_flight": len(self._runtime.in_flight)}
                )
            case _:
                raise RefusalError(404, "There is no such endpoint on a worker.", code="not_found")

    async def _readyz(self, send: Send) -> None:
        reason = self._runtime.not_ready_reason()
        body = {"status": self._runtime.state, "reason": reason}
        await respond_json(send, 503 if reason else 200, body)
