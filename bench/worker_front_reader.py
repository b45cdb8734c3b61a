"""The clients of `bench.worker_front`: sends all requests, reads every answer to its end."""

from __future__ import annotations

import asyncio
import sys

from bench.worker_front import request_bytes


async def main(url: str, streams: int, tokens: int, choices: int, number: int) -> None:
    host, port = url.split(":")
    async with asyncio.TaskGroup() as group:
        for stream in range(streams):
            request_id = f"req_{number}x{stream}"
            request = request_bytes(tokens=tokens, choices=choices, request_id=request_id)
            group.create_task(_read(host, int(port), request))


async def _read(host: str, port: int, request: bytes) -> None:
    reader, writer = await asyncio.open_connection(host, port, limit=1 << 22)
    writer.write(request)
    answer = await reader.readuntil(b"data: [DONE]\n\n")
    if not answer.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(answer[:200].decode())
    writer.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
