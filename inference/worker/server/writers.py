"""The two shapes of an answer: a stream of events, or one body at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from inference.messages import HEADER_RECEIPT, HEADER_REQUEST_ID, SignedEntry
from inference.worker.protocol.answers import Answer
from inference.worker.protocol.frames import (
    DONE,
    KEEP_ALIVE,
    Frames,
    error_frame,
    receipt_frame,
    receipt_header,
)
from inference.worker.protocol.heading import Heading
from inference.worker.protocol.pieces import Piece
from inference.worker.protocol.usage import Usage
from inference.worker.refusal import RefusalError
from inference.worker.server.asgi import JSON, Headers, Send, respond, respond_refusal

_EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]

BodyMaker = Callable[[Heading, Sequence[Answer], Usage], bytes]


class Writer(Protocol):
    """Where a request's answers go."""

    async def keep_alive(self) -> None:
        """The request still waits for its first token."""

    async def pieces(self, pieces: Sequence[Piece]) -> None:
        """More of some choices."""

    async def finish(self, pieces: Sequence[Piece], usage: Usage, signed: SignedEntry) -> None:
        """The last pieces of all, with the receipt."""

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
        self._opened: set[int] = set()

    async def keep_alive(self) -> None:
        await self._write(KEEP_ALIVE)

    async def pieces(self, pieces: Sequence[Piece]) -> None:
        frames = self._all(pieces)
        if frames or not self._status_sent:
            await self._write(frames)

    async def finish(self, pieces: Sequence[Piece], usage: Usage, signed: SignedEntry) -> None:
        counted = self._frames.usage(usage) if self._include_usage else b""
        await self._write(self._all(pieces) + counted + receipt_frame(signed) + DONE, more=False)

    async def fail(self, refusal: RefusalError, signed: SignedEntry | None) -> None:
        if not self._status_sent:
            await respond_refusal(self._send, refusal, _receipt_headers(signed))
            return
        receipt = b"" if signed is None else receipt_frame(signed)
        await self._write(error_frame(refusal.body()) + receipt + DONE, more=False)

    def _all(self, pieces: Sequence[Piece]) -> bytes:
        frames = []
        for piece in pieces:
            if piece.choice not in self._opened:
                self._opened.add(piece.choice)
                frames.append(self._frames.first(piece.choice))
            frames.append(self._frames.piece(piece))
        return frames[0] if len(frames) == 1 else b"".join(frames)

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        if not self._status_sent:
            self._status_sent = True
            await self._send({"type": "http.response.start", "status": 200, "headers": self._headers})
        if data or not more:
            await self._send({"type": "http.response.body", "body": data, "more_body": more})


class WholeWriter:
    """One JSON body, made by ``body`` of all answers at the end."""

    def __init__(self, send: Send, heading: Heading, answers: Sequence[Answer], body: BodyMaker) -> None:
        self._send = send
        self._heading = heading
        self._answers = answers
        self._body = body

    async def keep_alive(self) -> None:
        """Nothing can be said before the status is known."""

    async def pieces(self, pieces: Sequence[Piece]) -> None:
        """The answers hold them."""

    async def finish(self, pieces: Sequence[Piece], usage: Usage, signed: SignedEntry) -> None:
        del pieces  # the answers hold them
        body = self._body(self._heading, self._answers, usage)
        request_id = (HEADER_REQUEST_ID.encode(), self._heading.request_id.encode())
        await respond(self._send, 200, body, [JSON, request_id, *_receipt_headers(signed)])

    async def fail(self, refusal: RefusalError, signed: SignedEntry | None) -> None:
        await respond_refusal(self._send, refusal, _receipt_headers(signed))


def _receipt_headers(signed: SignedEntry | None) -> Headers:
    return [] if signed is None else [(HEADER_RECEIPT.encode(), receipt_header(signed))]
