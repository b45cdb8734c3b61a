"""An engine whose loop runs in a process of its own, so that its steps and the HTTP front's work do not take
turns in one interpreter. The front needs neither torch nor the model's memory.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from inference.engine.child import EngineChild
from inference.engine.front import EngineFront
from inference.engine.types import EngineConfig, RequestRejected
from inference.engine.wire import (
    AdapterChanged,
    Command,
    Ended,
    FrameReader,
    Open,
    ProtocolError,
    Ready,
    Refused,
    Report,
    Stepped,
    Stop,
    frame_encode,
)
from inference.tokenizer import Tokenizer
from inference.waking import wake_promptly

MAX_UNSENT_BYTES = 8 * 1024 * 1024
_STOP_LIMIT_S = 10.0
_EXIT_LIMIT_S = 5.0
_log = logging.getLogger(__name__)

_FromEngine = Ready | Refused | Stepped | AdapterChanged | Ended


class EngineDiedError(RuntimeError):
    """The engine's process ended before it was ready."""


class RemoteEngine(EngineFront):
    """One model being served by a child process. `launch`, then `generate` on the same event loop; `close` at
    the end. When the child dies, the requests in flight end as "lost" and `ended` returns.
    """

    def __init__(
        self,
        *,
        link: _Link,
        child: subprocess.Popen[bytes],
        ready: Ready,
        tokenizer: Tokenizer,
        config: EngineConfig,
    ) -> None:
        super().__init__(
            tokenizer=tokenizer,
            config=config,
            max_model_len=ready.max_model_len,
            vocab_size=ready.vocab_size,
            profiles=ready.profiles,
        )
        self._link = link
        self._child = child

    @property
    def pid(self) -> int:
        """The engine's process."""
        return self._child.pid

    @classmethod
    async def launch(
        cls,
        model_dir: Path,
        config: EngineConfig,
        *,
        log_fields: Mapping[str, str] | None = None,
        child: EngineChild | None = None,
    ) -> RemoteEngine:
        """Start the process, unless it is the `child` that was started before, and wait until its model is
        loaded; its log lines carry `log_fields`.

        Raises `TokenizerError`, ValueError with what the engine says of its files, or `EngineDiedError`. Call
        it in the main thread: the child dies with the thread that started it.
        """
        child = child or EngineChild.start(config.threads)
        link = _Link(child.link)
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=child.link)
            link.send(Open(str(model_dir), config, dict(log_fields or {})))
            tokenizer = await asyncio.to_thread(Tokenizer.from_dir, model_dir)
            ready = await link.ready
        except BaseException:
            child.process.kill()
            link.close()
            child.process.wait()
            raise
        engine = cls(link=link, child=child.process, ready=ready, tokenizer=tokenizer, config=config)
        link.attach(engine)
        if config.paced:
            wake_promptly()  # whatever the engine computes when a token is due
        return engine

    async def close(self) -> None:
        """Stop after the current step; requests in flight end with `cancelled`."""
        if not self._closed:
            self._closed = True
            self._link.send(Stop())
            try:
                await asyncio.wait_for(self.ended(), _STOP_LIMIT_S)
            except TimeoutError:
                _log.error("the engine does not stop; it is killed")
                self._child.kill()
        self._link.close()
        await asyncio.to_thread(self._reap)

    def _post(self, command: Command) -> None:
        self._link.send(command)

    def _check_line(self) -> None:
        if self._link.is_full:
            raise RequestRejected("queue_full", "the engine is behind in taking requests")

    def hear(self, report: Report) -> None:
        """For the link: a report has come."""
        if not isinstance(report, AdapterChanged):
            self._take_note(report)
        self._receive(report)

    def lost(self) -> None:
        """For the link: the connection is gone, and with it the engine, unless it had said goodbye."""
        self._holding.flush()
        if not self._ended.is_set():
            _log.error("the engine's process is gone; all requests in flight are lost")
            self._child.kill()
            self._end("lost")

    def _reap(self) -> None:
        """Collect the child's exit status; it ends once the connection is closed."""
        try:
            self._child.wait(_EXIT_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


class _Link(asyncio.Protocol):
    """The front's end of the connection."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self.ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        self.ready.add_done_callback(_failure_seen)
        self.is_full = False
        self._reader: FrameReader[_FromEngine] = FrameReader(_FromEngine)
        self._transport: asyncio.Transport | None = None
        self._engine: RemoteEngine | None = None
        self._is_lost = False

    def attach(self, engine: RemoteEngine) -> None:
        """Deliver to `engine` from now on."""
        self._engine = engine
        if self._is_lost:
            engine.lost()

    def send(self, message: Command | Open) -> None:
        """Queue a message; when the engine is gone it has nobody to go to. Raises RequestRejected for one
        that cannot be encoded.
        """
        try:
            frame = frame_encode(message)
        except ProtocolError as error:
            raise RequestRejected("invalid_params", str(error)) from error
        if self._transport is not None and not self._is_lost:
            self._transport.write(frame)

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()
        else:
            self._end.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own classes are no subclasses
        self._transport.set_write_buffer_limits(high=MAX_UNSENT_BYTES)

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False

    def data_received(self, data: bytes) -> None:
        try:
            for message in self._reader.feed(data):
                self._take(message)
        except ProtocolError:
            _log.exception("the engine does not speak this protocol")
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        if not self.ready.done():
            self.ready.set_exception(EngineDiedError("the engine's process ended while it loaded the model"))
        if self._engine is not None:
            self._engine.lost()

    def _take(self, message: _FromEngine) -> None:
        match message:
            case Ready():
                self.ready.set_result(message)
            case Refused(problem):
                self.ready.set_exception(ValueError(problem))
            case _ if self._engine is not None:
                self._engine.hear(message)


def _failure_seen(ready: asyncio.Future[Ready]) -> None:
    """A launch that failed for another reason does not wait for this one."""
    if not ready.cancelled():
        ready.exception()
