"""The little of ASGI that the gateway needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import orjson

from core.errors import ApiError
from gateway.headers import JSON_TYPE, Header
from gateway.upstream import UpstreamConnection

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class ClientGoneError(Exception):
    """The client closed its connection before its answer was complete."""


class Client:
    """The other end. ``watch`` once its body is read: when it goes, so does the connection to the worker."""

    __slots__ = ("_receive", "_task", "connection", "gone")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task: asyncio.Task[Message] | None = None
        self.connection: UpstreamConnection | None = None
        self.gone = False

    def watch(self) -> None:
        """Notice from now on when the client goes. Ends by itself with the response."""
        self._task = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> Message:
        message = await self._receive()
        self.gone = True
        if self.connection is not None:
            self.connection.abort("the client is gone")
        return message


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header called ``name`` (lower case)."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


async def body_read(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The request body. Raises ApiError (413) or ClientGoneError."""
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        body = body + part if body else part
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return body


async def respond(send: Send, status: int, body: bytes, headers: Iterable[Header] = (JSON_TYPE,)) -> None:
    """A whole response with its length."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def respond_error(send: Send, error: ApiError, headers: Iterable[Header]) -> None:
    """The four-field error with its retry headers."""
    retry = [(name.encode(), value.encode()) for name, value in error.headers().items()]
    await respond(send, error.status, orjson.dumps(error.body()), [JSON_TYPE, *retry, *headers])


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"The body is larger than {limit} bytes. Send less.", code="body_too_large")
