"""An engine within this process, its loop in a thread: for tools and tests.

The event loop never touches the engine's state. It posts commands to a thread-safe queue that is emptied
before every step, and receives all events of a step in one call.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue

import torch

from inference.engine.front import EngineFront
from inference.engine.loading import LoadedEngine, engine_load
from inference.engine.loop import EngineLoop
from inference.engine.pace import on_beat
from inference.engine.types import EngineConfig, RequestRejected
from inference.engine.wire import AdapterChanged, Command, Ended, Report, Stepped, Stop

_log = logging.getLogger(__name__)


class AsyncEngine(EngineFront):
    """One model being served. `load`, `start`, then `generate` from the event loop that started it; `close`
    at the end.
    """

    def __init__(self, loaded: LoadedEngine, config: EngineConfig) -> None:
        super().__init__(
            tokenizer=loaded.tokenizer,
            config=config,
            max_model_len=loaded.max_model_len,
            vocab_size=loaded.model_config.vocab_size,
            profiles=loaded.engine.changes.profiles,
        )
        self.model_config = loaded.model_config
        self._engine = loaded.engine
        self._period_s = loaded.period_s
        self._queue: SimpleQueue[Command] = SimpleQueue()
        self._thread: threading.Thread | None = None

    @classmethod
    def load(cls, model_dir: Path, config: EngineConfig) -> AsyncEngine:
        """Read the checkpoint folder. Raises `ConfigError`, `CheckpointError` or `TokenizerError`."""
        return cls(engine_load(Path(model_dir), config), config)

    async def start(self) -> None:
        """Start the engine's thread; events are delivered on the running event loop."""
        if self._thread is not None:
            raise RuntimeError("the engine was started before")
        line = _QueueLine(self._queue, asyncio.get_running_loop(), self._take_note, self._receive)
        self._thread = threading.Thread(target=self._run, args=(line,), name="engine", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Stop after the current step; requests in flight end with `cancelled`."""
        self._closed = True
        if self._thread is not None and self._thread.is_alive():
            self._queue.put(Stop())
            await asyncio.to_thread(self._thread.join)

    def _post(self, command: Command) -> None:
        self._queue.put(command)

    def _check_line(self) -> None:
        if self._thread is None:
            raise RequestRejected("engine_closed", "the engine has not been started")

    def _run(self, line: _QueueLine) -> None:
        """The engine's thread."""
        torch.set_num_threads(self.config.threads)
        EngineLoop(self._engine, on_beat(line, self.config, self._period_s)).run()


class _QueueLine:
    """Commands from a queue; reports to a callback in this thread, then to one on the event loop."""

    def __init__(
        self,
        commands: SimpleQueue[Command],
        loop: asyncio.AbstractEventLoop,
        at_once: Callable[[Stepped | Ended], None],
        on_loop: Callable[[Report], None],
    ) -> None:
        self._commands = commands
        self._loop = loop
        self._at_once = at_once
        self._on_loop = on_loop

    def take(self, *, wait: bool) -> list[Command]:
        found = [self._commands.get()] if wait else []
        while not self._commands.empty():  # this thread is the only one that takes
            found.append(self._commands.get())
        return found

    def publish(self, report: Report) -> None:
        if not isinstance(report, AdapterChanged):
            self._at_once(report)
        if not isinstance(report, Stepped) or report.events:
            try:
                self._loop.call_soon_threadsafe(self._on_loop, report)
            except RuntimeError:  # the loop is closed: nobody is left to tell
                _log.warning("the engine's events had no event loop to go to")
