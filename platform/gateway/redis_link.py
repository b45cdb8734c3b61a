"""One multiplexed Redis connection: commands of one loop turn leave in one write, replies come in order.

It never hangs: without a connection a command fails at once, a reply that stays away for ``timeout_s``
breaks the connection and fails everything waiting on it; reconnecting goes on in the background.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import hiredis
import structlog

_LOG = structlog.get_logger("gateway.redis")
_BACKOFF_MIN_S = 0.05
_BACKOFF_MAX_S = 1.0
_WATCH_INTERVAL_S = 0.1
MAX_PENDING = 50_000

Argument = str | bytes | int | float


class RedisAwayError(Exception):
    """No connection, or no answer in time. The command may or may not have been executed."""


class RedisReplyError(Exception):
    """Redis answered with an error."""


class Script:
    """A Lua script and its SHA-1, by which Redis knows it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


class _Connection(asyncio.Protocol):
    def __init__(self, on_lost: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_lost = on_lost
        self._reader = hiredis.Reader()
        self._pending: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._out: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while self._pending:
            try:
                reply = self._reader.gets()
            except hiredis.ProtocolError:
                self.fail()
                return
            if reply is False:
                return
            future, _ = self._pending.popleft()
            if future.done():
                continue
            if isinstance(reply, hiredis.ReplyError):
                future.set_exception(RedisReplyError(str(reply)))
            else:
                future.set_result(reply)

    def call(self, arguments: Sequence[Argument]) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.lost or len(self._pending) >= MAX_PENDING:
            future.set_exception(RedisAwayError("the connection is lost or overloaded"))
            return future
        self._pending.append((future, self._loop.time()))
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(
            hiredis.pack_command(cast("tuple[str | int | float | bytes | memoryview]", tuple(arguments)))
        )
        return future

    def send(self, arguments: Sequence[Argument]) -> None:
        """The same without anybody waiting for the reply."""
        if not self.lost and len(self._pending) < MAX_PENDING:
            self.call(arguments).add_done_callback(_reply_forget)

    def _flush(self) -> None:
        if self._transport is not None and not self.lost:
            self._transport.write(b"".join(self._out))
        self._out.clear()

    def oldest_s(self, now: float) -> float:
        """How long the longest-waiting command has waited."""
        return now - self._pending[0][1] if self._pending else 0.0

    def fail(self) -> None:
        """Break the connection; everything waiting on it fails."""
        if self.lost:
            return
        self.lost = True
        if self._transport is not None:
            self._transport.abort()
        while self._pending:
            future, _ = self._pending.popleft()
            if not future.done():
                future.set_exception(RedisAwayError("the connection was lost"))
        self._on_lost()


def _reply_forget(future: asyncio.Future[Any]) -> None:
    """Nobody waits for this reply: an error in it is no news."""
    future.exception()


class RedisLink:
    """The gateway's way to Redis. ``server_run`` names one life of the server: a restart changes it."""

    def __init__(self, url: str, *, timeout_s: float = 1.0, scripts: Sequence[Script] = ()) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("redis", "rediss") or parts.hostname is None:
            raise ValueError(
                "REDIS_URL must be redis://[user][:password@]host[:port][/database], or rediss://"
            )
        self._host, self._port, self._tls = parts.hostname, parts.port or 6379, parts.scheme == "rediss"
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._database = int(parts.path.strip("/") or 0)
        self._timeout_s = timeout_s
        self._scripts = tuple(scripts)
        self._connection: _Connection | None = None
        self._lost = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.server_run = ""
        self.observe: Callable[[float], None] = lambda _seconds: None

    @property
    def connected(self) -> bool:
        """Whether commands have somewhere to go."""
        return self._connection is not None and not self._connection.lost

    async def start(self) -> None:
        """Connect, waiting for one attempt at most; later attempts go on in the background."""
        first = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep_connected(first))
        await first

    async def close(self) -> None:
        """Stop reconnecting and drop the connection."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        if self._connection is not None:
            self._connection.fail()

    async def call(self, *arguments: Argument) -> Any:
        """One command's reply. Raises RedisAwayError or RedisReplyError."""
        connection = self._connection
        if connection is None:
            raise RedisAwayError("not connected")
        return await connection.call(arguments)

    def send_script(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> None:
        """Run a script without waiting; commands sent later on this link are executed after it.

        For work that something else repairs when it is lost.
        """
        if self._connection is not None:
            self._connection.send(("EVALSHA", script.sha, len(keys), *keys, *arguments))

    async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Replies of several commands sent together; the first failure is raised after all came back."""
        connection = self._connection
        if connection is None:
            raise RedisAwayError("not connected")
        futures = [connection.call(command) for command in commands]
        replies = await asyncio.gather(*futures, return_exceptions=True)
        for reply in replies:
            if isinstance(reply, BaseException):
                raise reply
        return replies

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """Run a script by its digest; a server that does not know it is told the source first."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        command = ("EVALSHA", script.sha, len(keys), *keys, *arguments)
        try:
            reply = await self.call(*command)
        except RedisReplyError as refusal:
            if not str(refusal).startswith("NOSCRIPT"):
                raise
            reply = await self.call("EVAL", script.source, len(keys), *keys, *arguments)
        self.observe(loop.time() - began)
        return reply

    async def _keep_connected(self, first: asyncio.Future[None]) -> None:
        backoff_s = _BACKOFF_MIN_S
        while True:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._connect()
            except (OSError, RedisAwayError, RedisReplyError) as error:
                _LOG.warning("redis_connect_failed", error=str(error) or type(error).__name__)
            else:
                _LOG.info("redis_connected")
                backoff_s = _BACKOFF_MIN_S
                if not first.done():
                    first.set_result(None)
                await self._watch()
                _LOG.warning("redis_lost")
            if not first.done():
                first.set_result(None)
            await asyncio.sleep(backoff_s)
            backoff_s = min(_BACKOFF_MAX_S, backoff_s * 2)

    async def _connect(self) -> None:
        self._lost.clear()
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            lambda: _Connection(self._lost.set), self._host, self._port, ssl=self._tls or None
        )
        try:
            if self._password:
                user = (self._user,) if self._user else ()
                await connection.call(("AUTH", *user, self._password))
            if self._database:
                await connection.call(("SELECT", self._database))
            for script in self._scripts:
                await connection.call(("SCRIPT", "LOAD", script.source))
            info = bytes(await connection.call(("INFO", "server")))
        except BaseException:
            connection.fail()
            raise
        self.server_run = next(
            (line[7:].decode() for line in info.splitlines() if line.startswith(b"run_id:")), ""
        )
        self._connection = connection

    async def _watch(self) -> None:
        """Until the connection is lost; break it when a reply stays away."""
        connection = self._connection
        loop = asyncio.get_running_loop()
        while connection is not None and not connection.lost:
            if connection.oldest_s(loop.time()) > self._timeout_s:
                _LOG.warning("redis_timeout", timeout_s=self._timeout_s)
                connection.fail()
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._lost.wait(), _WATCH_INTERVAL_S)
