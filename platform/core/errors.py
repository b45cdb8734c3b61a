"""Errors that reach a client.

ApiError carries what the wire formats need::

    ApiError
    ├── status, type, code, param, message    the four-field error body and its HTTP status
    └── retry_after_ms                        when, if ever, the same request may be tried again
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(eq=False)
class ApiError(Exception):
    """A refusal the client can act on. ``message`` says what is wrong and what to do."""

    status: int
    message: str
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    retry_after_ms: int | None = None

    def __str__(self) -> str:
        return self.message

    def body(self) -> dict[str, dict[str, str | None]]:
        """The JSON body: ``{"error": {message, type, param, code}}``, all four keys present."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def headers(self) -> dict[str, str]:
        """Retry headers as the OpenAI SDKs read them."""
        if self.retry_after_ms is None:
            return {"x-should-retry": "false"} if self.status in (402, 409) else {}
        seconds = max(1, -(-self.retry_after_ms // 1000))
        return {"retry-after": str(seconds), "retry-after-ms": str(self.retry_after_ms)}


def unauthorized(message: str = "Incorrect API key provided. Create a key in the console and send it as "
                 "'Authorization: Bearer <key>'.") -> ApiError:  # fmt: skip
    """401: missing, wrong, expired or revoked key (deliberately one message for all of them)."""
    return ApiError(401, message, type="authentication_error", code="invalid_api_key")


def not_found(message: str, *, code: str = "not_found", param: str | None = None) -> ApiError:
    """404 for an unknown object, or one of another tenant: the two must look the same."""
    return ApiError(404, message, code=code, param=param)


def overloaded(message: str, *, retry_after_ms: int = 1000) -> ApiError:
    """503: no capacity or a dependency is away; safe to retry."""
    return ApiError(
        503, message, type="server_error", code="server_is_overloaded", retry_after_ms=retry_after_ms
    )
