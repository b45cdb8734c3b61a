"""The gateway's picture of the consortium: snapshot, heartbeats, own requests in flight. In memory.

Refreshed from Redis; when Redis is away the last picture stays, and loads grow old only by their own expiry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from core import redis_keys
from core.clock import clock
from core.errors import ApiError, not_found
from gateway.redis_link import RedisLink
from routing.decide import digest_of
from routing.records import WorkerStatus
from routing.snapshot import Model, Snapshot, WorkerEntry, WorkerLoad

_SNAPSHOT = msgspec.json.Decoder(Snapshot)
_LOAD = msgspec.json.Decoder(WorkerLoad)
LOAD_TTL_MS = 5000


@dataclass(slots=True)
class _Local:
    """This gateway's own knowledge of a worker.

    ``baseline``: own requests that the newest heartbeat counted. ``heard_ms``: when that one came in, by
    this machine's clock, for the worker's may differ.
    """

    in_flight: int = 0
    baseline: int = 0
    heard_ms: int = 0
    unreachable_until_ms: int = 0


@dataclass(slots=True)
class View:
    """What routing is fed from. ``epoch`` changes when Redis lost its data and was published anew."""

    snapshot: Snapshot | None = None
    snapshot_digest: str = ""
    policy_digest: str = ""
    epoch: bytes | None = None
    loads: dict[str, WorkerLoad] = field(default_factory=dict)
    _raw: bytes = b""
    _models: dict[str, Model] = field(default_factory=dict)
    _workers: dict[str, WorkerEntry] = field(default_factory=dict)
    _by_model: dict[str, tuple[WorkerEntry, ...]] = field(default_factory=dict)
    _local: dict[str, _Local] = field(default_factory=dict)

    async def refresh(self, redis: RedisLink) -> None:
        """Read epoch, snapshot and loads. Raises RedisAwayError or RedisReplyError; then nothing changed."""
        names = tuple(self._workers)
        commands: list[Sequence[str]] = [("GET", redis_keys.EPOCH), ("GET", redis_keys.SNAPSHOT)]
        if names:
            commands.append(("MGET", *map(redis_keys.load, names)))
        replies = await redis.pipeline(commands)
        self.epoch = replies[0]
        if replies[1] is not None and replies[1] != self._raw:
            self.snapshot_set(_SNAPSHOT.decode(replies[1]))
            self._raw = replies[1]
        if names:
            for raw in replies[2]:
                if raw is not None:
                    self.load_set(_LOAD.decode(raw))

    def snapshot_set(self, snapshot: Snapshot) -> None:
        """Take a newer snapshot; an older one is ignored."""
        if self.snapshot is not None and snapshot.version < self.snapshot.version:
            return
        self.snapshot = snapshot
        self.snapshot_digest = digest_of(snapshot)
        self.policy_digest = digest_of(snapshot.policy)
        self._models = {model.name: model for model in snapshot.models}
        self._workers = {worker.worker_id: worker for worker in snapshot.workers}
        self._by_model = {
            name: tuple(worker for worker in snapshot.workers if worker.model == name)
            for name in self._models
        }
        for known in (self.loads, self._local):
            for name in known.keys() - self._workers.keys():
                if known is self.loads or not self._local[name].in_flight:
                    del known[name]

    def load_set(self, load: WorkerLoad) -> None:
        """Take a heartbeat's figures unless a newer one is known."""
        before = self.loads.get(load.worker_id)
        if load.worker_id not in self._workers or (before is not None and load.at_ms < before.at_ms):
            return
        self.loads[load.worker_id] = load
        local = self._of(load.worker_id)
        if before is None or (before.seq, before.at_ms) != (load.seq, load.at_ms):
            local.baseline = local.in_flight
            local.heard_ms = clock.now_ms()

    def models(self) -> tuple[Model, ...]:
        """All models tenants may ask for."""
        return tuple(self._models.values())

    def model(self, name: str) -> Model:
        """The model called ``name``. Raises ApiError (404)."""
        model = self._models.get(name)
        if model is None:
            message = f"The model {name!r} does not exist. GET /v1/models lists those that do."
            raise not_found(message, code="model_not_found", param="model")
        return model

    def worker(self, worker_id: str) -> WorkerEntry | None:
        """The enrolled worker with this id."""
        return self._workers.get(worker_id)

    def statuses(self, model: str) -> Mapping[str, WorkerStatus]:
        """What routing may know of the model's workers now; those without a fresh heartbeat are absent."""
        now = clock.now_ms()
        found = {}
        for worker in self._by_model.get(model, ()):
            load, local = self.loads.get(worker.worker_id), self._of(worker.worker_id)
            if load is None or local.heard_ms + LOAD_TTL_MS < now:
                continue
            state = "unreachable" if local.unreachable_until_ms > now else load.state
            beyond = load.running + load.queued + local.in_flight - local.baseline
            found[worker.worker_id] = WorkerStatus(state=state, in_flight=max(local.in_flight, beyond))
        return found

    def began(self, worker_id: str) -> None:
        """One more of this gateway's requests is at the worker."""
        self._of(worker_id).in_flight += 1

    def ended(self, worker_id: str) -> None:
        """One fewer."""
        self._of(worker_id).in_flight -= 1

    def mark_unreachable(self, worker_id: str, seconds: float) -> None:
        """Leave the worker out of routing for a while: it could not be connected to."""
        self._of(worker_id).unreachable_until_ms = clock.now_ms() + int(seconds * 1000)

    def require_snapshot(self) -> Snapshot:
        """The snapshot. Raises ApiError (503) before the first was read."""
        if self.snapshot is None:
            raise ApiError(
                503,
                "The gateway is starting. Try again shortly.",
                type="server_error",
                code="server_is_overloaded",
                retry_after_ms=1000,
            )
        return self.snapshot

    def _of(self, worker_id: str) -> _Local:
        local = self._local.get(worker_id)
        if local is None:
            local = self._local[worker_id] = _Local()
        return local
