"""A gateway that answers one canned response and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class StubGateway:
    """``frames`` are sent as they are, after a head with ``status``; ``requests`` holds (path, key, body)."""

    url: str = ""
    status: str = "200 OK"
    frames: Sequence[bytes] = ()
    endless: bool = False
    requests: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        body = await reader.readexactly(int(headers["content-length"]))
        self.requests.append((lines[0].split(" ")[1], headers["authorization"], json.loads(body)))
        writer.write(
            f"HTTP/1.1 {self.status}\r\nx-request-id: req_stub\r\nconnection: close\r\n\r\n".encode()
        )
        try:
            for frame in self.frames:
                writer.write(frame)
                await writer.drain()
            while self.endless:
                writer.write(self.frames[-1])
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        finally:
            writer.close()
            self.closed.set()


@asynccontextmanager
async def gateway_running(
    *, frames: Sequence[bytes] = (), status: str = "200 OK", endless: bool = False
) -> AsyncIterator[StubGateway]:
    """A stub on a free port."""
    stub = StubGateway(frames=frames, status=status, endless=endless)
    server = await asyncio.start_server(stub.answer, "127.0.0.1", 0)
    stub.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield stub


def chunk(text: str, finish_reason: str | None = None) -> bytes:
    """A frame of a chat stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish_reason}
    return f"data: {json.dumps({'choices': [choice]})}\n\n".encode()


DONE = b"data: [DONE]\n\n"
