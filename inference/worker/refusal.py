"""Errors that leave the worker as the four-field body of the OpenAI wire format."""

from __future__ import annotations

from dataclasses import dataclass

import orjson


@dataclass(eq=False)
class RefusalError(Exception):
    """Why a request is not served. ``retry_after_ms`` says when, if ever, the same one may be tried again."""

    status: int
    message: str
    code: str | None = None
    param: str | None = None
    type: str = "invalid_request_error"
    retry_after_ms: int | None = None

    def __str__(self) -> str:
        return self.message

    def body(self) -> bytes:
        """``{"error": {message, type, param, code}}``, all four keys present."""
        fields = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return orjson.dumps({"error": fields})

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Retry headers as the OpenAI SDKs read them."""
        if self.retry_after_ms is None:
            return [(b"x-should-retry", b"false")] if self.status == 409 else []
        seconds = max(1, -(-self.retry_after_ms // 1000))
        return [(b"retry-after", b"%d" % seconds), (b"retry-after-ms", b"%d" % self.retry_after_ms)]


def invalid(message: str, *, param: str | None = None, code: str | None = None) -> RefusalError:
    """400: the request must be changed before it is sent again."""
    return RefusalError(400, message, param=param, code=code)


def unsupported(param: str, message: str) -> RefusalError:
    """400 for a parameter this worker does not implement: refused, never silently ignored."""
    return RefusalError(400, message, param=param, code="unsupported_parameter")


def overloaded(message: str, *, retry_after_ms: int = 1000) -> RefusalError:
    """503: nothing was computed; another worker, or this one later, can take the request."""
    return RefusalError(
        503, message, type="server_error", code="server_is_overloaded", retry_after_ms=retry_after_ms
    )


def fault(message: str) -> RefusalError:
    """500: the worker failed; nothing the client sent was wrong."""
    return RefusalError(500, message, type="server_error", code="internal_error")
