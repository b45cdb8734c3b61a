"""Ends the holds that a dead gateway left behind, by the word of the workers that may have served them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx
import structlog

from core.clock import clock
from inference.messages import SignedEntry
from metering import metrics
from metering.holds import Hold, PricedWorker
from metering.journals import JournalReader, Silence, WorkerAddress
from metering.orphans import Orphan, OrphanHolds

GIVE_UP_AFTER_MS = 24 * 3_600_000

log = structlog.get_logger()


@dataclass(slots=True)
class SweepReport:
    """How many orphaned holds one sweep settled, voided, and left for the next."""

    settled: int = 0
    voided: int = 0
    kept: int = 0


@dataclass(frozen=True, slots=True)
class Served:
    """A worker's word that it served the request, and its price."""

    priced: PricedWorker
    signed: SignedEntry
    public_key: str

    @property
    def complete(self) -> bool:
        """Whether the answer ran to its end, so that no other worker can have done more."""
        return self.signed.entry.finish_reason in ("stop", "length")


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What the workers of one hold said: the best entry, if any, and whether all who must answer did."""

    served: Served | None
    decided: bool


class Sweeper:
    """``workers`` reads the enrolled workers by id; ``sweep`` raises when Redis or PostgreSQL is away."""

    def __init__(
        self,
        holds: OrphanHolds,
        journals: JournalReader,
        workers: Callable[[], Mapping[str, WorkerAddress]],
    ) -> None:
        self._holds = holds
        self._journals = journals
        self._workers = workers
        self._known: Mapping[str, WorkerAddress] | None = None
        self._mute: set[str] = set()

    def sweep(self) -> SweepReport:
        """One pass over all orphaned holds."""
        report = SweepReport()
        self._known = None
        self._mute.clear()
        for orphan in self._holds.find():
            self._end(orphan, report)
        _count(report)
        return report

    def _end(self, orphan: Orphan, report: SweepReport) -> None:
        too_old = clock.now_ms() - orphan.created_ms > GIVE_UP_AFTER_MS
        hold = orphan.hold()
        inquiry = self._inquire(hold) if hold else Inquiry(None, decided=False)
        if not (inquiry.decided or too_old):
            report.kept += 1
        elif hold and inquiry.served:
            served = inquiry.served
            report.settled += self._holds.settle(hold, served.priced, served.signed, served.public_key)
        else:
            if not inquiry.decided:
                log.error("hold voided after a day without a worker's word", request_id=orphan.request_id)
            report.voided += self._holds.void(orphan)

    def _inquire(self, hold: Hold) -> Inquiry:
        if self._known is None:
            self._known = self._workers()
        best: Served | None = None
        decided = True
        for priced in hold.context.workers:
            worker = self._known.get(priced.worker_id)
            if worker is None:
                continue
            answer = self._ask(worker, hold.request_id)
            if isinstance(answer, SignedEntry):
                served = Served(priced, answer, worker.public_key)
                if served.complete:
                    return Inquiry(served, decided=True)
                best = _better(best, served)
            elif answer is Silence.UNKNOWN and not worker.retired:
                decided = False
        return Inquiry(best, decided=decided)

    def _ask(self, worker: WorkerAddress, request_id: str) -> SignedEntry | Silence:
        if worker.worker_id in self._mute:
            return Silence.UNKNOWN
        try:
            return self._journals.entry(worker, request_id)
        except httpx.TransportError:
            self._mute.add(worker.worker_id)  # one time-out a worker a sweep, however many holds
            return Silence.UNKNOWN


def _better(left: Served | None, right: Served) -> Served:
    if left is None or right.signed.entry.completion_tokens > left.signed.entry.completion_tokens:
        return right
    return left


def _count(report: SweepReport) -> None:
    metrics.ORPHANS.set(report.kept)
    metrics.SETTLED.labels("settled").inc(report.settled)
    metrics.SETTLED.labels("voided").inc(report.voided)
    if report.settled or report.voided:
        log.info("orphaned holds ended", settled=report.settled, voided=report.voided, kept=report.kept)
