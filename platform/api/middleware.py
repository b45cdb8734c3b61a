"""Around every request: its id, its log line, its metrics, and the headers that keep browsers safe."""

from __future__ import annotations

import time

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.utils.deprecation import MiddlewareMixin

from api.failures import as_api_error, error_response
from api.metrics import LATENCY, REQUESTS
from core.ids import is_id, new_id
from inference.messages import HEADER_REQUEST_ID

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
_log = structlog.get_logger("http")


class RequestContextMiddleware(MiddlewareMixin):
    """Outermost, so that it sees the final answer of every request."""

    def process_request(self, request: HttpRequest) -> None:
        """Take over a well-formed request id or make one, and bind it to all logs."""
        given = request.headers.get(HEADER_REQUEST_ID, "")
        request_id = given if is_id(given, "req") else new_id("req")
        request.META["tokenworks.request_id"] = request_id
        request.META["tokenworks.started_s"] = time.perf_counter()
        structlog.contextvars.bind_contextvars(request_id=request_id)

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Add headers, give errors under /api their form, count, and log."""
        if request.path.startswith("/api/") and isinstance(response, HttpResponse):
            response = _four_fields(response)
            response.headers.setdefault("Cache-Control", "no-store")
        response.headers[HEADER_REQUEST_ID] = request.META["tokenworks.request_id"]
        response.headers.setdefault("Content-Security-Policy", settings.CONTENT_SECURITY_POLICY)
        response.headers.setdefault("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
        elapsed_s = time.perf_counter() - request.META["tokenworks.started_s"]
        self._count(request, response, elapsed_s)
        structlog.contextvars.unbind_contextvars("request_id")
        return response

    def _count(self, request: HttpRequest, response: HttpResponseBase, elapsed_s: float) -> None:
        route = request.resolver_match.route if request.resolver_match else "unmatched"
        method = request.method if request.method in _METHODS else "other"
        REQUESTS.labels(method, route, str(response.status_code)).inc()
        LATENCY.labels(route).observe(elapsed_s)
        if request.path not in _QUIET:
            _log.info(
                "request",
                method=method,
                route=route,
                status=response.status_code,
                duration_ms=round(elapsed_s * 1000, 1),
            )


def _four_fields(response: HttpResponse) -> HttpResponse:
    is_json = response.headers.get("Content-Type", "").startswith("application/json")
    if response.status_code < 400 or is_json:
        return response
    rewritten = error_response(as_api_error(response))
    if "Allow" in response.headers:
        rewritten.headers["Allow"] = response.headers["Allow"]
    return rewritten
