"""What gateways and workers know and do right now, read from Redis."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import redis

from core import redis_keys
from directory.redis_client import redis_client
from directory.snapshots import snapshot_read
from routing.snapshot import WorkerLoad

_LOAD = msgspec.json.Decoder(WorkerLoad)


def worker_loads(worker_ids: Sequence[str]) -> dict[str, WorkerLoad] | None:
    """The newest heartbeat of each worker that still sends them; None when Redis is away."""
    if not worker_ids:
        return {}
    try:
        raw = redis_client().mget([redis_keys.load(worker_id) for worker_id in worker_ids])
    except redis.RedisError:
        return None
    loads = [_LOAD.decode(text) for text in raw if text is not None]
    return {load.worker_id: load for load in loads}


def served_models() -> dict[str, int]:
    """Models that some worker serves, with their context in tokens; none when Redis is away or empty."""
    try:
        snapshot = snapshot_read(redis_client().get(redis_keys.SNAPSHOT))
    except redis.RedisError:
        return {}
    if snapshot is None:
        return {}
    served = {worker.model for worker in snapshot.workers if worker.state == "active"}
    return {model.name: model.max_model_len for model in snapshot.models if model.name in served}
