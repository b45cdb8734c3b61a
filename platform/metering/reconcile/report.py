"""The whole comparison, and what of it is still on its way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import httpx
import msgspec
import redis

from core import redis_keys
from metering.journals import JournalReader, WorkerAddress, workers_known
from metering.reconcile.journal_side import WorkerTally, worker_tally
from metering.reconcile.ledger_side import LedgerTally, ledger_tally


@dataclass(frozen=True, slots=True)
class Report:
    """Both sides; ``agrees`` when no token and no nano-dollar differs anywhere."""

    workers: tuple[WorkerTally, ...]
    ledger: LedgerTally

    @property
    def agrees(self) -> bool:
        """Whether there is no difference."""
        return self.ledger.agrees and all(worker.agrees for worker in self.workers)


def reconcile(*, client: redis.Redis, journals: JournalReader) -> Report:
    """Ask every worker that is not retired for its journal and compare. Changes nothing."""
    workers = [worker for worker in workers_known().values() if not worker.retired]
    return Report(
        workers=tuple(_tally(worker, client, journals) for worker in workers),
        ledger=ledger_tally(),
    )


def _tally(worker: WorkerAddress, client: redis.Redis, journals: JournalReader) -> WorkerTally:
    try:
        return worker_tally(worker, journals.entries(worker), partial(_open_requests, client))
    except (httpx.HTTPError, msgspec.DecodeError) as error:
        return WorkerTally(worker.worker_id, worker.name, worker.partner_id, unreachable=type(error).__name__)


def _open_requests(client: redis.Redis, request_ids: Sequence[str]) -> set[str]:
    """Requests that are held, or settled and still in the usage stream."""
    with client.pipeline(transaction=False) as pipeline:
        for request_id in request_ids:
            pipeline.exists(redis_keys.hold(request_id))
            pipeline.get(redis_keys.settled(request_id))
        pipeline.xlen(redis_keys.USAGE_STREAM)
        *answers, streaming = pipeline.execute()
    held, markers = answers[::2], answers[1::2]
    return {
        request_id
        for request_id, is_held, marker in zip(request_ids, held, markers, strict=True)
        if is_held or (marker == b"charged" and streaming)
    }
