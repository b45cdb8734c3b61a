"""The raw client towards workers: reuse, ticks, time-outs, backpressure, broken answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gateway.pool import WorkerPool
from gateway.upstream import UpstreamConnection, UpstreamError

HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[tuple[WorkerPool, str, list[int]]]:
    """A pool, an endpoint whose connections ``handler`` serves, and a list that grows by connection."""
    connections: list[int] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    pool = WorkerPool(connect_timeout_s=1.0, keep_alive_interval_s=10.0)
    try:
        yield pool, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", connections
    finally:
        pool.close()
        server.close()
        await asyncio.sleep(0.01)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(data)
    await writer.drain()


async def opened(pool: WorkerPool, endpoint: str) -> UpstreamConnection:
    return await pool.open(endpoint, HEAD, b"", timeout_s=10, quiet_s=10)


async def test_connection_serves_again_and_again() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await answer(reader, writer, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async with served(handler) as (pool, endpoint, connections):
        for _ in range(5):
            connection = await opened(pool, endpoint)
            assert await connection.head() == 200
            assert await connection.read_all(10) == b"ok"
            pool.release(endpoint, connection)
        assert len(connections) == 1


async def test_close_and_unfinished_answers_end_a_connection() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        close = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
        await answer(reader, writer, close)

    async with served(handler) as (pool, endpoint, connections):
        for _ in range(2):
            connection = await opened(pool, endpoint)
            assert await connection.head() == 200
            pool.release(endpoint, connection)
        assert len(connections) == 2


async def test_silence_ticks_then_times_out() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with served(handler) as (pool, endpoint, _):
        connection = await opened(pool, endpoint)
        connection.tick(connection.active_at + 5, 10.0)  # too early to say anything
        waiting = asyncio.create_task(connection.head())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        connection.tick(connection.active_at + 10, 10.0)
        assert await waiting is None
        waiting = asyncio.create_task(connection.head())
        await asyncio.sleep(0.01)
        connection.tick(connection.active_at + 11, 10.0)
        with pytest.raises(UpstreamError, match="too long") as caught:
            await waiting
        assert caught.value.timed_out
        assert not connection.usable


@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhal"],
)
async def test_broken_answers_are_errors(data: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer, data)

    async with served(handler) as (pool, endpoint, _):
        connection = await opened(pool, endpoint)

        async def whole() -> bytes:
            await connection.head()
            return await connection.read_all(100)

        with pytest.raises(UpstreamError) as caught:
            await whole()
        assert not caught.value.timed_out


async def test_slow_reader_stops_the_worker() -> None:
    written = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await answer(reader, writer, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(1000):
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()
            written += 65536
        writer.write(b"0\r\n\r\n")

    async with served(handler) as (pool, endpoint, _):
        connection = await opened(pool, endpoint)
        assert await connection.head() == 200
        for _ in range(50):
            await asyncio.sleep(0.01)
        assert written < 32 * 2**20  # the kernel's buffers and ours, not all of it
        assert len(await connection.read_all(2**27)) == 1000 * 65536


async def test_answer_beyond_all_measure_is_cut_off() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer, b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + b"x" * 100)

    async with served(handler) as (pool, endpoint, _):
        connection = await opened(pool, endpoint)
        await connection.head()
        with pytest.raises(UpstreamError, match="too large"):
            await connection.read_all(50)


async def drain_endlessly(writer: asyncio.StreamWriter, line: bytes) -> int:
    """Write until the other end has had enough; how many bytes that took."""
    written = 0
    while written < 8 * 2**20:
        writer.write(line)
        written += len(line)
        try:
            await writer.drain()
        except ConnectionError:
            break
    return written


@pytest.mark.parametrize(
    "begin",
    [
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
    ],
    ids=["headers", "after_interim", "trailers"],
)
async def test_endless_headers_are_cut_off(begin: bytes) -> None:
    written: list[int] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer(reader, writer, begin)
        written.append(await drain_endlessly(writer, b"x-%d: " % len(written) + b"y" * 4096 + b"\r\n"))

    async with served(handler) as (pool, endpoint, _):
        connection = await opened(pool, endpoint)

        async def whole() -> bytes:
            await connection.head()
            return await connection.read_all(100)

        with pytest.raises(UpstreamError, match="headers"):
            await asyncio.wait_for(whole(), 10)
        await asyncio.sleep(0.05)
    assert written[0] < 8 * 2**20


async def test_worker_that_speaks_unasked_is_not_asked_again() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        whole = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
        await answer(reader, writer, whole + b"ok")
        await asyncio.sleep(0.02)
        writer.write(whole + b"no" + b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
        await reader.read()

    async with served(handler) as (pool, endpoint, connections):
        connection = await opened(pool, endpoint)
        assert await connection.head() == 200
        assert await connection.read_all(10) == b"ok"
        pool.release(endpoint, connection)
        await asyncio.sleep(0.1)
        assert not connection.usable
        again = await opened(pool, endpoint)
        assert await again.head() == 200
        assert await again.read_all(10) == b"ok"
        assert len(connections) == 2


async def test_nobody_listening_is_an_error() -> None:
    pool = WorkerPool(connect_timeout_s=0.2, keep_alive_interval_s=10.0)
    with pytest.raises(UpstreamError, match="no connection"):
        await opened(pool, "http://127.0.0.1:9")
    pool.close()
