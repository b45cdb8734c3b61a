"""What of a snapshot does not change from request to request, worked out once a snapshot and model."""

from __future__ import annotations

from typing import NamedTuple

from routing.records import Candidate, Exclusion
from routing.snapshot import Snapshot, WorkerEntry


class Contest(NamedTuple):
    """The workers of one model, by id: those that may compete, and those that never can."""

    entrants: tuple[Candidate, ...]
    excluded: tuple[Exclusion, ...]


class _Memo:
    """Contests of the snapshot that was asked for last; a newer one takes its place."""

    snapshot: Snapshot | None = None
    contests: dict[str, Contest]


def contest_of(snapshot: Snapshot, model_name: str) -> Contest:
    """The contest for a model; empty when there is no such model."""
    if _Memo.snapshot is not snapshot:
        _Memo.contests, _Memo.snapshot = {}, snapshot
    contest = _Memo.contests.get(model_name)
    if contest is None:
        contest = _Memo.contests[model_name] = _contest(snapshot, model_name)
    return contest


def _contest(snapshot: Snapshot, model_name: str) -> Contest:
    digests = {model.name: model.release_digest for model in snapshot.models}
    entrants: list[Candidate] = []
    excluded: list[Exclusion] = []
    for worker in sorted(snapshot.workers, key=lambda one: one.worker_id):
        if worker.model != model_name or model_name not in digests:
            continue
        code = None if worker.state == "active" else "not_active"
        if worker.release_digest != digests[model_name]:
            code = "release_mismatch"
        if code is None:
            entrants.append(_entrant(worker))
        else:
            excluded.append(Exclusion(worker_id=worker.worker_id, partner=worker.partner_slug, code=code))
    return Contest(tuple(entrants), tuple(excluded))


def _entrant(worker: WorkerEntry) -> Candidate:
    return Candidate(
        worker_id=worker.worker_id,
        partner_id=worker.partner_id,
        partner=worker.partner_slug,
        pool_id=worker.pool_id,
        price=worker.price,
        in_flight=0,
        max_running=worker.max_running,
        tier=0,
        cost_ppm=0,
        weight=0,
    )
