"""The two shapes of an answer: a stream of events, or one body at the end."""

from __future__ import annotations

from typing import Protocol

from inference.messages import HEADER_RECEIPT, HEADER_REQUEST_ID, SignedEntry
from inference.worker.protocol.frames import (
    DONE,
    KEEP_ALIVE,
    Frames,
    Heading,
    error_frame,
    receipt_frame,
    receipt_header,
    whole_body,
)
from inference.worker.protocol.usage import Usage
from inference.worker.refusal import RefusalError
from inference.worker.server.asgi import JSON, Headers, Send, respond, respond_refusal

_EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class Writer(Protocol):
    """Where a request's text goes."""

    async def keep_alive(self) -> None:
        """The request still waits for its first token."""

    async def text(self, text: str) -> None:
        """More of the answer."""

    async def finish(self, text: str, reason: str, usage: Usage, signed: SignedEntry) -> None:
        """The last of the answer, with its receipt."""

    async def fail(self, refusal: RefusalError, signed: SignedEntry | None) -> None:
        """The answer ends here, with an error; there is a receipt if it was journalled."""


class StreamWriter:
    """Server-sent events. The status leaves with the first one: an early failure is a plain error."""

    def __init__(self, send: Send, heading: Heading, *, include_usage: bool) -> None:
        self._send = send
        self._headers = [*_EVENT_STREAM, (HEADER_REQUEST_ID.encode(), heading.request_id.encode())]
        self._frames = Frames(heading, include_usage=include_usage)
        self._include_usage = include_usage
        self._status_sent = False
        self._first_sent = False

    async def keep_alive(self) -> None:
        await self._write(KEEP_ALIVE)

    async def text(self, text: str) -> None:
        frame = self._frames.text(text)
        if frame or not self._first_sent:
            await self._write(self._opening() + frame)

    async def finish(self, text: str, reason: str, usage: Usage, signed: SignedEntry) -> None:
        frames = [self._opening(), self._frames.text(text), self._frames.finish(reason)]
        if self._include_usage:
            frames.append(self._frames.usage(usage))
        await self._write(b"".join([*frames, receipt_frame(signed), DONE]), more=False)

    async def fail(self, refusal: RefusalError, signed: SignedEntry | None) -> None:
        if not self._status_sent:
            await respond_refusal(self._send, refusal, _receipt_headers(signed))
            return
        receipt = b"" if signed is None else receipt_frame(signed)
        await self._write(error_frame(refusal.body()) + receipt + DONE, more=False)

    def _opening(self) -> bytes:
        if self._first_sent:
            return b""
        self._first_sent = True
        return self._frames.first()

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        if not self._status_sent:
            self._status_sent = True
            await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
        if data or not more:
            await self._send({"type": "http.response.body", "body": data, "more_body": more})


class WholeWriter:
    """One JSON body."""

    def __init__(self, send: Send, heading: Heading) -> None:
        self._send = send
        self._heading = heading
        self._texts: list[str] = []

    async def keep_alive(self) -> None:
        """Nothing can be said before the status is known."""

    async def text(self, text: str) -> None:
        self._texts.append(text)

    async def finish(self, text: str, reason: str, usage: Usage, signed: SignedEntry) -> None:
        body = whole_body(self._heading, "".join([*self._texts, text]), reason, usage)
        request_id = (HEADER_REQUEST_ID.encode(), self._heading.request_id.encode())
        await respond(self._send, 200, body, [JSON, request_id, *_receipt_headers(signed)])

    async def fail(self, refusal: RefusalError, signed: SignedEntry | None) -> None:
        await respond_refusal(self._send, refusal, _receipt_headers(signed))


def _receipt_headers(signed: SignedEntry | None) -> Headers:
    return [] if signed is None else [(HEADER_RECEIPT.encode(), receipt_header(signed))]
