"""The asyncio side of an engine, wherever its loop runs: requests are checked and numbered in, events are
handed to whoever iterates over them.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from inference.engine.admission import check_request
from inference.engine.types import (
    EngineConfig,
    EngineStats,
    FinishReason,
    GenerationRequest,
    RequestRejected,
    TokenEvent,
)
from inference.engine.wire import (
    AdapterChanged,
    Cancel,
    Command,
    DropAdapter,
    Ended,
    LoadAdapter,
    Report,
    Stepped,
    Submit,
)
from inference.tokenizer import Tokenizer


@dataclass(slots=True)
class _Inbox:
    """Where one request's events wait for their reader. It holds as many as the request has tokens at most:
    a reader that is slow delays nobody. `latest` was put in last; at first, an event without tokens.
    """

    latest: TokenEvent
    events: asyncio.Queue[TokenEvent] = field(default_factory=asyncio.Queue)


class EngineFront(ABC):
    """Admission, cancellation and delivery. It lives on one event loop, and so do its callers."""

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        config: EngineConfig,
        max_model_len: int,
        vocab_size: int,
        profiles: Iterable[str] = (),
    ) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self.max_model_len = max_model_len
        self._vocab_size = vocab_size
        self._inboxes: dict[str, _Inbox] = {}
        self._profiles = frozenset(profiles)
        self._adapters: set[str] = set()
        self._changes: deque[asyncio.Future[str | None]] = deque()
        self._closed = False
        self._ended = asyncio.Event()
        self._stats = EngineStats(
            running=0,
            queued=0,
            pages_total=config.pages,
            pages_free=config.pages,
            generated_tokens=0,
            steps=0,
            max_running=config.max_running,
        )

    @abstractmethod
    def _post(self, command: Command) -> None:
        """Send a command to the loop, without waiting."""

    @abstractmethod
    def _check_line(self) -> None:
        """Raise `RequestRejected` unless a command would reach the loop soon."""

    def stats(self) -> EngineStats:
        """The state after the latest step."""
        return self._stats

    async def ended(self) -> None:
        """Wait until the loop has ended, by itself or because it was closed."""
        await self._ended.wait()

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that take requests."""
        return tuple(sorted(self._adapters))

    async def adapter_load(self, name: str, folder: Path) -> None:
        """Serve the LoRA adapter in `folder` as `name`; steps go on before and after it is read.

        Raises `RequestRejected` (`adapter_refused`, `engine_closed`) with what is wrong.
        """
        await self._change(LoadAdapter(name, str(folder)))
        self._adapters.add(name)

    async def adapter_drop(self, name: str) -> None:
        """Take no more requests for `name`; those in flight go on. Raises `RequestRejected` as above."""
        self._adapters.discard(name)
        await self._change(DropAdapter(name))

    def generate(self, request: GenerationRequest) -> AsyncGenerator[TokenEvent, None]:
        """Events of one request, the last of which has a `finish_reason`.

        Raises `RequestRejected` at once. Closing the iterator (or cancelling the task that iterates) cancels
        the request; its pages are free before the next step.
        """
        check_request(request, max_model_len=self.max_model_len, vocab_size=self._vocab_size)
        if request.adapter is not None and request.adapter not in self._adapters:
            raise RequestRejected("unknown_adapter", f"no adapter {request.adapter} is loaded")
        if request.routing is not None and request.routing not in self._profiles:
            raise RequestRejected("unknown_routing", f"no routing profile {request.routing} is loaded")
        self._check_room(request.request_id)
        return self._events(request)

    def _check_room(self, request_id: str) -> None:
        if self._closed:
            raise RequestRejected("engine_closed", "the engine is not running")
        if request_id in self._inboxes:
            raise RequestRejected("duplicate_request", f"request {request_id} is in flight already")
        if len(self._inboxes) >= self.config.max_running + self.config.max_queued:
            raise RequestRejected("queue_full", f"{len(self._inboxes)} requests are in flight already")
        self._check_line()

    async def _events(self, request: GenerationRequest) -> AsyncGenerator[TokenEvent, None]:
        self._check_room(request.request_id)  # again: iteration may begin much later than `generate`
        self._post(Submit(request))
        inbox = self._inboxes[request.request_id] = _Inbox(_beginning(request))
        finished = False
        try:
            while not finished:
                event = await inbox.events.get()
                finished = event.finish_reason is not None
                yield event
        finally:
            del self._inboxes[request.request_id]
            if not finished:
                self._post(Cancel(request.request_id))

    async def _change(self, command: LoadAdapter | DropAdapter) -> None:
        if self._closed:
            raise RequestRejected("engine_closed", "the engine is not running")
        self._check_line()
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._changes.append(answer)
        self._post(command)
        problem = await answer
        if problem is not None:
            raise RequestRejected("adapter_refused", problem)

    def _take_note(self, report: Stepped | Ended) -> None:
        """The state after a step; from any thread, in the order of the steps."""
        self._stats = report.stats
        self._closed |= isinstance(report, Ended)

    def _receive(self, report: Report) -> None:
        """Hand out what a step brought; on the event loop."""
        if isinstance(report, AdapterChanged):
            answer = self._changes.popleft()
            if not answer.done():
                answer.set_result(report.problem)
            return
        self._deliver(report.events)
        if isinstance(report, Ended):
            self._end(report.reason)

    def _deliver(self, events: Iterable[TokenEvent]) -> None:
        inboxes = self._inboxes
        for event in events:
            inbox = inboxes.get(event.request_id)
            if inbox is not None:
                inbox.latest = event
                inbox.events.put_nowait(event)

    def _end(self, reason: FinishReason) -> None:
        """The loop is gone: a last event for requests that it left unfinished or never took."""
        self._closed = True
        for request_id, inbox in self._inboxes.items():
            latest = inbox.latest
            if latest.finish_reason is None:
                counts = latest.prompt_tokens, latest.cached_tokens, latest.completion_tokens
                inbox.events.put_nowait(TokenEvent(request_id, "", (), reason, *counts))
        for answer in self._changes:
            if not answer.done():
                answer.set_exception(RequestRejected("engine_closed", "the engine has ended"))
        self._ended.set()


def _beginning(request: GenerationRequest) -> TokenEvent:
    """What can be said of a request before its first event."""
    return TokenEvent(request.request_id, "", (), None, len(request.prompt_token_ids), 0, 0)
