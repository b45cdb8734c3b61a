"""Kept-alive connections to workers, and the watch that no exchange waits for ever."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from gateway.upstream import UpstreamConnection, UpstreamError

_IDLE_MAX = 256
_IDLE_S = 4.0  # below the shortest keep-alive time of common servers
_SWEEP_S = 1.0


@dataclass(slots=True)
class _Target:
    host: str
    port: int
    tls: bool
    path: str
    idle: list[UpstreamConnection] = field(default_factory=list)


class WorkerPool:
    """Connections by endpoint (``http[s]://host:port[/path]``): ``open``, then ``release`` or ``discard``."""

    def __init__(self, *, connect_timeout_s: float, keep_alive_interval_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._interval_s = keep_alive_interval_s
        self._targets: dict[str, _Target] = {}
        self._active: set[UpstreamConnection] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._task = asyncio.get_running_loop().create_task(self._sweep())

    def close(self) -> None:
        """Drop every connection."""
        if self._task is not None:
            self._task.cancel()
        for connection in list(self._active):
            connection.abort()
        for target in self._targets.values():
            while target.idle:
                target.idle.pop().abort()

    async def open(
        self,
        endpoint: str,
        head: bytes,
        body: bytes,
        *,
        timeout_s: float,
        quiet_s: float,
        fresh: bool = False,
    ) -> UpstreamConnection:
        """Send ``head`` (request line and headers up to the host header) and ``body``.

        Takes an idle connection unless ``fresh``. Raises UpstreamError when there is none to be had.
        """
        target = self._target(endpoint)
        connection = None
        while target.idle and not fresh:
            candidate = target.idle.pop()
            if candidate.usable:
                connection = candidate
                connection.reused = True
                break
        if connection is None:
            connection = await self._connect(target)
        self._active.add(connection)
        try:
            connection.request(
                head + b"content-length: %d\r\n\r\n" % len(body) + body, timeout_s=timeout_s, quiet_s=quiet_s
            )
        except UpstreamError:
            self.discard(connection)
            raise
        return connection

    def release(self, endpoint: str, connection: UpstreamConnection) -> None:
        """The exchange is over: keep the connection for the next one if it can serve it."""
        self._active.discard(connection)
        target = self._target(endpoint)
        if connection.reusable and len(target.idle) < _IDLE_MAX:
            connection.active_at = asyncio.get_running_loop().time()
            target.idle.append(connection)
        else:
            connection.abort()

    def discard(self, connection: UpstreamConnection) -> None:
        """Close the connection at once, whatever it was doing."""
        self._active.discard(connection)
        connection.abort()

    def path(self, endpoint: str) -> str:
        """The path under which an endpoint's routes lie, without a trailing slash."""
        return self._target(endpoint).path

    def authority(self, endpoint: str) -> str:
        """``host:port`` for the host header."""
        target = self._target(endpoint)
        return f"{target.host}:{target.port}"

    async def _connect(self, target: _Target) -> UpstreamConnection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(
                    UpstreamConnection, target.host, target.port, ssl=target.tls or None
                )
        except (OSError, TimeoutError) as error:
            raise UpstreamError(f"no connection: {error or 'timed out'}") from None
        return connection

    def _target(self, endpoint: str) -> _Target:
        target = self._targets.get(endpoint)
        if target is None:
            parts = urlsplit(endpoint)
            tls = parts.scheme == "https"
            port = parts.port or (443 if tls else 80)
            target = _Target(parts.hostname or "", port, tls, parts.path.rstrip("/"))
            self._targets[endpoint] = target
        return target

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = loop.time()
            for connection in list(self._active):
                connection.tick(now, self._interval_s)
            for target in self._targets.values():
                while target.idle and now - target.idle[0].active_at > _IDLE_S:
                    target.idle.pop(0).abort()
