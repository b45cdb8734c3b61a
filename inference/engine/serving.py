"""What the engine's process does: it serves the front at the other end of a socket.

The front opens with the checkpoint to load, then sends commands; see `inference.engine.wire`. The process is
there for its front alone: it ends when the front closes the socket or dies, and leaves signals to it, so that
a signal to both lets the front drain first.
"""

from __future__ import annotations

import gc
import logging
import os
import socket
from pathlib import Path

from inference.engine.loading import engine_load
from inference.engine.loop import EngineLoop, FrontGoneError
from inference.engine.pace import on_beat
from inference.engine.types import TokenEvent
from inference.engine.wire import (
    Command,
    FrameReader,
    Open,
    ProtocolError,
    Ready,
    Refused,
    Report,
    Stepped,
    frame_encode,
)
from inference.logs import json_logs
from inference.parent_death import parent_follow

_CHUNK_BYTES = 256 * 1024
_log = logging.getLogger(__name__)


class SocketLine:
    """The engine's end. Writing blocks while the front is behind by more than the socket's buffer: no step is
    computed that nobody can take. The front always reads, so neither side waits for the other in a circle.
    """

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._commands: FrameReader[Command] = FrameReader(Command)

    def open(self) -> Open:
        """The first message, which comes alone. Raises FrontGoneError or ProtocolError."""
        reader: FrameReader[Open] = FrameReader(Open)
        while not (found := reader.feed(self._read(0))):
            pass
        return found[0]

    def take(self, *, wait: bool) -> list[Command]:
        """As `Line.take`. Raises ProtocolError too."""
        found: list[Command] = []
        try:
            while True:
                blocking = wait and not found
                found += self._commands.feed(self._read(0 if blocking else socket.MSG_DONTWAIT))
        except BlockingIOError:
            return found

    def publish(self, report: Report) -> None:
        """As `Line.publish`. Events too large for one message, such as the log probabilities of several
        long prompts, go in more; one that is too large alone, which admission should prevent, is an error.
        """
        try:
            frame = frame_encode(report)
        except ProtocolError:
            if not isinstance(report, Stepped) or not report.events:
                raise
            for part in _smaller(report.events):
                self.publish(Stepped(part, report.stats, report.due_s))
        else:
            self.send(frame)

    def send(self, frame: bytes) -> None:
        """All bytes of a frame. Raises FrontGoneError."""
        try:
            self._end.sendall(frame)
        except ConnectionError as error:
            raise FrontGoneError from error

    def _read(self, flags: int) -> bytes:
        try:
            data = self._end.recv(_CHUNK_BYTES, flags)
        except ConnectionError as error:
            raise FrontGoneError from error
        if not data:
            raise FrontGoneError
        return data


def _smaller(events: list[TokenEvent]) -> list[list[TokenEvent]]:
    """Events that do not fit one message, as what may fit several."""
    if len(events) > 1:
        middle = len(events) // 2
        return [events[:middle], events[middle:]]
    large = events[0]
    _log.error("an event of request %s is too large to be told", large.request_id)
    counts = large.prompt_tokens, large.cached_tokens, large.completion_tokens
    return [[TokenEvent(large.request_id, "", (), "error", *counts)]]


def serve(line: SocketLine) -> int:
    """Load and run one engine; returns the exit status. Raises FrontGoneError."""
    order = line.open()
    json_logs(order.log_fields)
    try:
        loaded = engine_load(Path(order.model_dir), order.config)
    except (ValueError, OSError) as error:
        line.send(frame_encode(Refused(str(error))))
        return os.EX_CONFIG
    # What is loaded stays: the collector need never look at it again in the middle of a step.
    gc.collect()
    gc.freeze()
    gc.enable()
    profiles = tuple(loaded.engine.changes.profiles)
    line.send(frame_encode(Ready(loaded.max_model_len, loaded.model_config.vocab_size, profiles)))
    reason = EngineLoop(loaded.engine, on_beat(line, order.config, loaded.period_s)).run()
    return os.EX_SOFTWARE if reason == "lost" else os.EX_OK


def front_serve(number: int) -> int:
    """Serve the front at the other end of the inherited socket `number` until it is gone."""
    parent_follow()
    with socket.socket(fileno=number) as end:
        try:
            return serve(SocketLine(end))
        except FrontGoneError:
            return os.EX_OK
        except Exception:
            _log.exception("the engine's process fails")
            return os.EX_SOFTWARE
