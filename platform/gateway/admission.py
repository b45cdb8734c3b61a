"""Admission: key, limits and the hold for the worst case, in one scripted round trip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from core import redis_keys
from core.errors import ApiError, overloaded, unauthorized
from core.money import format_dollars
from core.secrets import digest_secret, looks_like_secret
from gateway.headers import RateFigures
from gateway.redis_link import RedisAwayError, RedisLink, RedisReplyError, Script
from routing.snapshot import KeyRecord

ADMIT = Script(Path(__file__).with_name("admit.lua").read_text(encoding="utf-8"))
_ACCOUNT_PREFIX = redis_keys.account("")
_BUCKET_PREFIX = redis_keys.bucket("")
_RECORD = msgspec.json.Decoder(KeyRecord)


class Admitted(NamedTuple):
    """A request that may go on: whose it is, and its key's figures for the response headers."""

    key: KeyRecord
    figures: RateFigures


class AdmissionError(ApiError):
    """A refusal that knows the key's figures."""

    figures: RateFigures | None = None


class AdmissionUnknownError(Exception):
    """Redis went away while deciding: a hold may exist and must be voided."""


def bearer_digest(authorization: bytes | None) -> str:
    """Look-up key of the caller's API key. Raises ApiError (401) for what cannot be a key."""
    scheme, _, token = (authorization or b"").decode("latin-1").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not looks_like_secret(token):
        raise unauthorized()
    return digest_secret(token)


async def key_check(redis: RedisLink, digest: str) -> KeyRecord:
    """The key's record, without any limit being touched. Raises ApiError (401 or 503)."""
    try:
        record, epoch, time = await redis.pipeline(
            (("GET", redis_keys.key_record(digest)), ("EXISTS", redis_keys.EPOCH), ("TIME",))
        )
    except (RedisAwayError, RedisReplyError):
        raise away() from None
    if record is None:
        raise unauthorized() if epoch else away()
    key = _RECORD.decode(record)
    if key.expires_at_ms is not None and key.expires_at_ms <= int(time[0]) * 1000:
        raise unauthorized()
    return key


async def admit(
    redis: RedisLink,
    *,
    digest: str,
    request_id: str,
    amount_nano: int,
    tokens: int,
    gateway_id: str,
    context: bytes,
    model: str,
) -> Admitted:
    """Hold ``amount_nano`` for the request.

    Raises ApiError (401, 402, 403, 429, 503) or AdmissionUnknownError.
    """
    keys = (
        redis_keys.key_record(digest),
        redis_keys.EPOCH,
        redis_keys.settled(request_id),
        redis_keys.hold(request_id),
        redis_keys.HOLDS,
    )
    arguments = (
        request_id, amount_nano, tokens, gateway_id, context, model, _ACCOUNT_PREFIX, _BUCKET_PREFIX,
    )  # fmt: skip
    if not redis.connected:
        raise away()
    try:
        reply: Sequence[Any] = await redis.run(ADMIT, keys, arguments)
    except RedisAwayError:
        raise AdmissionUnknownError from None
    except RedisReplyError:
        raise away() from None
    if reply[0] == b"ok":
        return Admitted(key=_RECORD.decode(reply[1]), figures=RateFigures(*reply[2:8]))
    raise _refusal(bytes(reply[0]), reply, amount_nano, model)


def _refusal(verdict: bytes, reply: Sequence[Any], amount_nano: int, model: str) -> ApiError:
    if verdict == b"no_key":
        return unauthorized()
    if verdict == b"model":
        message = f"This key may not use the model {model}. Ask the project's owner to allow it."
        return ApiError(403, message, type="permission_error", code="model_not_allowed", param="model")
    if verdict not in (b"requests", b"tokens", b"concurrency", b"funds"):
        return away()
    if verdict == b"funds":
        refused = AdmissionError(
            402,
            f"Insufficient balance: this request may cost up to {format_dollars(amount_nano)}, available is "
            f"{format_dollars(int(reply[1]))}. Top up, or lower max_tokens.",
            type="insufficient_quota",
            code="insufficient_balance",
        )
    else:
        name = verdict.decode()
        limit = "running at the same time" if name == "concurrency" else "a minute"
        noun = "tokens" if name == "tokens" else "requests"
        refused = AdmissionError(
            429,
            f"Rate limit reached for this key: {noun} {limit}. Try again later.",
            type="rate_limit_error",
            code="concurrency_limit_exceeded" if name == "concurrency" else "rate_limit_exceeded",
            retry_after_ms=max(1, int(reply[1])),
        )
    refused.figures = RateFigures(*reply[2:8])
    return refused


def away() -> ApiError:
    """503: nothing can be admitted without Redis."""
    return overloaded("The service cannot check your key and balance at the moment. Try again shortly.")
