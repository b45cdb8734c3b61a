"""``POST /internal/heartbeat``: signed load reports of workers, kept for all gateways in Redis."""

from __future__ import annotations

import msgspec

from core import redis_keys
from core.clock import clock
from core.errors import ApiError, not_found
from core.signing import signature_is_valid
from gateway.admission import away
from gateway.plane import Plane
from gateway.redis_link import RedisAwayError, RedisReplyError
from gateway.view import LOAD_TTL_MS
from inference.messages import Heartbeat
from routing.snapshot import WorkerLoad

BODY_BYTES_MAX = 16 * 1024
_SKEW_MS_MAX = 30_000
_NUMBERS = ("seq", "at_ms", "running", "queued", "max_running", "pages_free", "pages_total")
_NUMBER_MAX = 2**53 - 1  # routing reckons with these for every worker's requests
_ENCODER = msgspec.json.Encoder()


async def heartbeat_take(plane: Plane, body: bytes) -> None:
    """Check and keep one heartbeat. Raises ApiError (400, 401, 403, 404, 409, 503)."""
    beat, signature = _parse(body)
    worker = plane.view.worker(beat.worker_id)
    if worker is None:
        raise not_found("This worker is not in the directory yet. Keep trying.", code="unknown_worker")
    if not signature_is_valid(
        public_text=worker.public_key, message=beat.signing_bytes(), signature=signature
    ):
        message = "The heartbeat's signature does not fit the worker's key."
        raise ApiError(401, message, type="authentication_error", code="bad_signature")
    if beat.release_digest != worker.release_digest:
        message = "The worker serves another release than it enrolled with."
        raise ApiError(403, message, type="permission_error", code="release_mismatch")
    if abs(beat.at_ms - clock.now_ms()) > _SKEW_MS_MAX:
        raise ApiError(401, "The heartbeat's time is off by more than 30 s.", code="clock_skew")
    before = plane.view.loads.get(beat.worker_id)
    if before is not None and beat.seq <= before.seq and beat.at_ms <= before.at_ms:
        raise ApiError(409, "This heartbeat is older than one already taken.", code="replayed")
    load = WorkerLoad(
        worker_id=beat.worker_id,
        seq=beat.seq,
        at_ms=beat.at_ms,
        state=beat.state,
        running=beat.running,
        queued=beat.queued,
        max_running=beat.max_running,
    )
    plane.view.load_set(load)
    try:
        key = redis_keys.load(beat.worker_id)
        await plane.redis.call("SET", key, _ENCODER.encode(load), "PX", LOAD_TTL_MS)
    except (RedisAwayError, RedisReplyError):
        raise away() from None


def _parse(body: bytes) -> tuple[Heartbeat, str]:
    try:
        raw = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        signature = msgspec.json.decode(raw.pop("signature"), type=str)
        beat = msgspec.json.decode(msgspec.json.encode(raw), type=Heartbeat)
    except KeyError:
        raise ApiError(400, "signature: is required.", param="signature", code="invalid_heartbeat") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"Not a heartbeat: {error}.", code="invalid_heartbeat") from None
    for name in _NUMBERS:
        if not 0 <= getattr(beat, name) <= _NUMBER_MAX:
            message = f"{name}: must be from 0 to {_NUMBER_MAX}."
            raise ApiError(400, message, param=name, code="invalid_heartbeat")
    return beat, signature
