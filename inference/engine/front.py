"""The asyncio side of an engine, wherever its loop runs: requests are checked and numbered in, events are
handed to whoever iterates over them.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

from inference.engine.admission import check_request
from inference.engine.pace import Holding
from inference.engine.types import (
    EngineConfig,
    EngineStats,
    EventBatch,
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
    """Where events wait for their reader, who takes all there are at once: one that is slow delays nobody,
    and catches up. It holds as many as its requests have tokens at most.
    """

    events: EventBatch = field(default_factory=list)
    reader: asyncio.Future[None] | None = None

    def put(self, number: int, event: TokenEvent) -> None:
        self.events.append((number, event))
        reader, self.reader = self.reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)

    async def take(self) -> EventBatch:
        if not self.events:
            self.reader = asyncio.get_running_loop().create_future()
            await self.reader
        found, self.events = self.events, []
        return found


@dataclass(slots=True)
class _Place:
    """A request in flight: `number` among those of its reader. `latest` came last; at first, an event without
    tokens.
    """

    inbox: _Inbox
    number: int
    latest: TokenEvent


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
        self._places: dict[str, _Place] = {}
        self._profiles = frozenset(profiles)
        self._adapters: set[str] = set()
        self._changes: deque[asyncio.Future[str | None]] = deque()
        self._holding = Holding(self._hand_on)
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
        """Events of one request, the last of which has a `finish_reason`; otherwise as `stream`."""
        return _one_by_one(self.stream([request]))

    def stream(self, requests: Sequence[GenerationRequest]) -> AsyncGenerator[EventBatch, None]:
        """Events of some requests, each with its request's number: all that came since the last were taken. A
        request's last has a `finish_reason`; the iterator ends with the last of all.

        Raises `RequestRejected` at once. Closing the iterator (or cancelling the task that iterates) cancels
        what is left; its pages are free before the next step.
        """
        for request in requests:
            self._check(request)
        self._check_room(requests)
        return self._batches(requests)

    def _check(self, request: GenerationRequest) -> None:
        check_request(request, max_model_len=self.max_model_len, vocab_size=self._vocab_size)
        if request.adapter is not None and request.adapter not in self._adapters:
            raise RequestRejected("unknown_adapter", f"no adapter {request.adapter} is loaded")
        if request.routing is not None and request.routing not in self._profiles:
            raise RequestRejected("unknown_routing", f"no routing profile {request.routing} is loaded")

    def _check_room(self, requests: Sequence[GenerationRequest]) -> None:
        if self._closed:
            raise RequestRejected("engine_closed", "the engine is not running")
        for request in requests:
            if request.request_id in self._places:
                raise RequestRejected(
                    "duplicate_request", f"request {request.request_id} is in flight already"
                )
        room = self.config.max_running + self.config.max_queued
        if len(requests) > room:
            raise RequestRejected(
                "invalid_params", f"choices: expected at most {room}, found {len(requests)}"
            )
        if len(self._places) + len(requests) > room:
            raise RequestRejected("queue_full", f"{len(self._places)} requests are in flight already")
        self._check_line()

    async def _batches(self, requests: Sequence[GenerationRequest]) -> AsyncGenerator[EventBatch, None]:
        self._check_room(requests)  # again: iteration may begin much later than `stream`
        inbox = _Inbox()
        mine: dict[str, _Place] = {}
        try:
            for number, request in enumerate(requests):
                self._post(Submit(request))
                place = mine[request.request_id] = _Place(inbox, number, _beginning(request))
                self._places[request.request_id] = place
            ends = 0
            while ends < len(requests):
                batch = await inbox.take()
                ends += sum(event.finish_reason is not None for _, event in batch)
                yield batch
        finally:
            for request_id, place in mine.items():
                if self._places.get(request_id) is place:
                    del self._places[request_id]
                    self._holding.forget(request_id)
                    self._post(Cancel(request_id))

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
        """Hand out what a step brought, when it is due; on the event loop."""
        if isinstance(report, AdapterChanged):
            answer = self._changes.popleft()
            if not answer.done():
                answer.set_result(report.problem)
            return
        self._holding.take(report)

    def _hand_on(self, report: Stepped | Ended) -> None:
        self._deliver(report.events)
        if isinstance(report, Ended):
            self._end(report.reason)

    def _deliver(self, events: Iterable[TokenEvent]) -> None:
        places = self._places
        for event in events:
            place = places.get(event.request_id)
            if place is not None:
                place.latest = event
                place.inbox.put(place.number, event)
                if event.finish_reason is not None:
                    del places[event.request_id]

    def _end(self, reason: FinishReason) -> None:
        """The loop is gone: a last event for requests that it left unfinished or never took."""
        self._closed = True
        for request_id, place in self._places.items():
            latest = place.latest
            counts = latest.prompt_tokens, latest.cached_tokens, latest.completion_tokens
            place.inbox.put(place.number, TokenEvent(request_id, "", (), reason, *counts))
        self._places.clear()
        for answer in self._changes:
            if not answer.done():
                answer.set_exception(RequestRejected("engine_closed", "the engine has ended"))
        self._holding.close()
        self._ended.set()


async def _one_by_one(batches: AsyncGenerator[EventBatch, None]) -> AsyncGenerator[TokenEvent, None]:
    """The events of a single request."""
    async with aclosing(batches):
        async for batch in batches:
            for _, event in batch:
                yield event


def _beginning(request: GenerationRequest) -> TokenEvent:
    """What can be said of a request before its first event."""
    return TokenEvent(request.request_id, "", (), None, len(request.prompt_token_ids), 0, 0)
