"""The state of one worker process, shared by its HTTP handlers and its background tasks."""

from __future__ import annotations

import asyncio
import hmac
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from inference.engine.types import EngineStats
from inference.messages import Enrolment, WorkerState
from inference.worker.journal.journal import Journal
from inference.worker.metrics import WorkerMetrics
from inference.worker.ports import EnginePort
from inference.worker.refusal import RefusalError, overloaded

_NO_STATS = EngineStats(
    running=0, queued=0, pages_total=0, pages_free=0, generated_tokens=0, steps=0, max_running=0
)


class Interruptible(Protocol):
    """A request in flight."""

    def interrupt(self, cause: str) -> None:
        """End it within one engine step; ``cause`` is for the log."""


@dataclass(slots=True)
class Service:
    """What exists once the model is loaded and the worker is enrolled."""

    engine: EnginePort
    journal: Journal
    enrolment: Enrolment
    release_digest: str
    adapters_dir: Path | None = None


@dataclass(slots=True)
class Runtime:
    """``service`` is None while starting. ``changed`` is set once at the next change of state, then replaced.

    ``failed`` is set when only a new process can help; ``failure`` says why.
    """

    release: str
    metrics: WorkerMetrics = field(default_factory=WorkerMetrics)
    service: Service | None = None
    draining: bool = False
    in_flight: dict[str, Interruptible] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    failure: str | None = None

    @property
    def state(self) -> WorkerState:
        """As reported in heartbeats; a worker that can take nothing for good says it is draining."""
        if self.service is None:
            return "starting"
        return "ready" if self.not_ready_reason() is None else "draining"

    def stats(self) -> EngineStats:
        """The engine's figures; zeros while there is none."""
        return _NO_STATS if self.service is None else self.service.engine.stats()

    def begin(self, service: Service) -> None:
        """Take requests from now on."""
        self.service = service
        self.metrics.watch_engine(service.engine.stats)
        self._announce()

    def fail(self, reason: str) -> None:
        """Take no more requests; the process ends."""
        self.failure = reason
        self.failed.set()
        self._announce()

    def drain(self) -> None:
        """Take no more requests; those in flight go on."""
        self.draining = True
        self._announce()

    def not_ready_reason(self) -> str | None:
        """Why no request is taken now, or None."""
        if self.draining:
            return "This worker is draining."
        if self.service is None:
            return "This worker is starting."
        return self.failure or self.service.journal.broken

    def serving(self) -> Service:
        """The service, for new work. Raises RefusalError (503) when none is taken."""
        reason = self.not_ready_reason()
        if reason is not None or self.service is None:
            raise overloaded(f"{reason} Try again.")
        return self.service

    def require_bearer(self, authorization: str | None) -> None:
        """Let through the holder of the dispatch token. Raises RefusalError (401; 503 while starting)."""
        if self.service is None:
            raise overloaded("This worker is starting. Try again.")
        expected = f"Bearer {self.service.enrolment.dispatch_token}"
        if not hmac.compare_digest((authorization or "").encode(), expected.encode()):
            message = "Only a gateway with this worker's dispatch token may call it."
            raise RefusalError(401, message, type="authentication_error", code="invalid_dispatch_token")

    def _announce(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()
