"""The little of ASGI and HTTP that the worker needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

import orjson

from inference.worker.refusal import RefusalError, invalid

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

MAX_BODY_BYTES = 4 * 1024 * 1024
JSON = (b"content-type", b"application/json")


class ClientGoneError(Exception):
    """The connection closed before the request was complete."""


def header(scope: Scope, name: bytes) -> str | None:
    """The first header called ``name`` (lower case), or None."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return None


def query_int(scope: Scope, name: str, *, default: int, low: int, high: int) -> int:
    """An integer of the query string, within its limits. Raises RefusalError (400)."""
    values = parse_qs(scope["query_string"].decode("latin-1")).get(name)
    if not values:
        return default
    text = values[-1]
    if not text.lstrip("-").isdecimal() or len(text) > 18 or not low <= int(text) <= high:
        raise invalid(f"{name}: expected an integer from {low} to {high}.", param=name, code="invalid_value")
    return int(text)


async def body_read(scope: Scope, receive: Receive) -> bytes:
    """The request body. Raises RefusalError (413) or ClientGoneError."""
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdecimal() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    parts, size = list[bytes](), 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise _too_large()
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


async def respond(
    send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = (JSON,)
) -> None:
    """A whole response with its length."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def respond_json(send: Send, status: int, value: object) -> None:
    """A whole JSON response."""
    await respond(send, status, orjson.dumps(value))


async def respond_refusal(send: Send, refusal: RefusalError, headers: Headers | None = None) -> None:
    """The four-field error with its retry headers."""
    await respond(send, refusal.status, refusal.body(), [JSON, *refusal.headers(), *(headers or [])])


def _too_large() -> RefusalError:
    return RefusalError(413, f"The body is larger than {MAX_BODY_BYTES} bytes.", code="body_too_large")
