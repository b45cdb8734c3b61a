"""The asyncio front: the engine runs in a thread of its own, callers iterate over events.

The event loop never touches the engine's state. It posts commands to a thread-safe queue that is emptied
before every step, and receives all events of a step in one call.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

import torch

from inference.engine.admission import check_request
from inference.engine.core import Engine
from inference.engine.runner import Runner
from inference.engine.types import (
    EngineConfig,
    EngineStats,
    FinishReason,
    GenerationRequest,
    RequestRejected,
    TokenEvent,
)
from inference.models.config import ModelConfig
from inference.models.loader import load_model
from inference.tokenizer import Tokenizer

_log = logging.getLogger(__name__)

_Argument = TypeVar("_Argument")
_Command = GenerationRequest | str | None  # submit, cancel by id, stop


@dataclass(frozen=True, slots=True)
class _Inbox:
    """Where one request's events wait for their reader."""

    prompt_tokens: int
    events: asyncio.Queue[TokenEvent] = field(default_factory=asyncio.Queue)


class AsyncEngine:
    """One model being served. `load`, `start`, then `generate` from the event loop that started it; `close`
    at the end.
    """

    def __init__(
        self, *, engine: Engine, tokenizer: Tokenizer, model_config: ModelConfig, config: EngineConfig
    ) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.model_config = model_config
        self.max_model_len = min(model_config.max_position_embeddings, config.pages * config.page_size)
        self._engine = engine
        self._stats = engine.stats()
        self._commands: SimpleQueue[_Command] = SimpleQueue()
        self._inboxes: dict[str, _Inbox] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    @classmethod
    def load(cls, model_dir: Path, config: EngineConfig) -> AsyncEngine:
        """Read the checkpoint folder. Raises `ConfigError`, `CheckpointError` or `TokenizerError`."""
        torch.set_num_threads(config.threads)
        tokenizer = Tokenizer.from_dir(model_dir)
        model = load_model(Path(model_dir), dtype=getattr(torch, config.dtype))
        engine = Engine(
            config=config,
            runner=Runner(model, config),
            eos_ids=tokenizer.eos_ids,
            token_bytes=tokenizer.token_bytes,
        )
        return cls(engine=engine, tokenizer=tokenizer, model_config=model.config, config=config)

    async def start(self) -> None:
        """Start the engine's thread; events are delivered on the running event loop."""
        if self._thread is not None:
            raise RuntimeError("the engine was started before")
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Stop after the current step; requests in flight end with `cancelled`."""
        self._closed = True
        if self._thread is not None and self._thread.is_alive():
            self._commands.put(None)
            await asyncio.to_thread(self._thread.join)

    def stats(self) -> EngineStats:
        """The state after the latest step."""
        return self._stats

    def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenEvent, None]:
        """Events of one request, the last of which has a `finish_reason`.

        Raises `RequestRejected` at once. Closing the iterator (or cancelling the task that iterates) cancels
        the request; its pages are free before the next step.
        """
        check_request(request, max_model_len=self.max_model_len, vocab_size=self.model_config.vocab_size)
        self._check_room(request.request_id)
        return self._events(request)

    def _check_room(self, request_id: str) -> None:
        if self._closed or self._thread is None or not self._thread.is_alive():
            raise RequestRejected("engine_closed", "the engine is not running")
        if request_id in self._inboxes:
            raise RequestRejected("duplicate_request", f"request {request_id} is in flight already")
        if len(self._inboxes) >= self.config.max_running + self.config.max_queued:
            raise RequestRejected("queue_full", f"{len(self._inboxes)} requests are in flight already")

    async def _events(self, request: GenerationRequest) -> AsyncGenerator[TokenEvent, None]:
        self._check_room(request.request_id)  # again: iteration may begin much later than `generate`
        inbox = self._inboxes[request.request_id] = _Inbox(len(request.prompt_token_ids))
        self._commands.put(request)
        finished = False
        try:
            while not finished:
                event = await inbox.events.get()
                finished = event.finish_reason is not None
                yield event
        finally:
            del self._inboxes[request.request_id]
            if not finished:
                self._commands.put(request.request_id)

    def _deliver(self, events: list[TokenEvent]) -> None:
        for event in events:
            if event.request_id in self._inboxes:
                self._inboxes[event.request_id].events.put_nowait(event)

    def _end_inboxes(self, reason: FinishReason) -> None:
        """A last event for requests that the thread never took from the queue of commands."""
        for request_id, inbox in self._inboxes.items():
            inbox.events.put_nowait(TokenEvent(request_id, "", (), reason, inbox.prompt_tokens, 0, 0))

    def _run(self) -> None:
        """The engine's thread."""
        torch.set_num_threads(self.config.threads)
        reason: FinishReason = "cancelled"
        try:
            while self._obey():
                self._publish(self._step() if self._engine.has_work else [])
        except Exception:
            _log.exception("the engine's thread ends")
            reason = "error"
        self._closed = True
        self._publish(self._engine.end_all(reason))
        self._on_loop(self._end_inboxes, reason)

    def _obey(self) -> bool:
        """Carry out all commands posted so far, waiting for one when there is nothing else to do; False at
        the end.
        """
        try:
            command = self._commands.get(block=not self._engine.has_work)
            while command is not None:
                if isinstance(command, str):
                    self._engine.cancel(command)
                else:
                    self._engine.submit(command)
                command = self._commands.get_nowait()
        except Empty:
            return True
        return False

    def _step(self) -> list[TokenEvent]:
        try:
            return self._engine.step()
        except Exception:
            _log.exception("the engine failed outside its model; all requests in flight end with an error")
            return self._engine.end_all("error")

    def _publish(self, events: list[TokenEvent]) -> None:
        self._stats = self._engine.stats()
        if events:
            self._on_loop(self._deliver, events)

    def _on_loop(self, call: Callable[[_Argument], None], argument: _Argument) -> None:
        if self._loop is not None and not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(call, argument)
            except RuntimeError:  # the loop closed in between: nobody is left to tell
                _log.warning("the engine's events had no event loop to go to")
