"""How a worker joins, over the wire."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from api.schemas.base import In, Out


class ChallengeIn(In):
    """A worker's one-time token; ``release`` where the partner offers several."""

    token: Annotated[str, StringConstraints(max_length=200)]
    release: Annotated[str, StringConstraints(max_length=63)] | None = None


class RangeOut(Out):
    """Bytes of a release file to hash."""

    path: str
    offset: int
    length: int


class ChallengeOut(Out):
    """What to hash: ``inference.messages.challenge_proof`` over the nonce and these ranges, in order."""

    nonce: str
    release: str
    ranges: list[RangeOut]


class EnrolIn(In):
    """``inference.messages.EnrolRequest`` with the signature over its signing bytes."""

    token: Annotated[str, StringConstraints(max_length=200)]
    nonce: Annotated[str, StringConstraints(max_length=64)]
    name: Annotated[str, StringConstraints(max_length=120)]
    endpoint: Annotated[str, StringConstraints(max_length=200)]
    public_key: Annotated[str, StringConstraints(max_length=64)]
    release: Annotated[str, StringConstraints(max_length=63)]
    release_digest: Annotated[str, StringConstraints(max_length=64)]
    proof: Annotated[str, StringConstraints(max_length=64)]
    capacity: dict[str, Annotated[int, Field(strict=True)]]
    signature: Annotated[str, StringConstraints(max_length=128)]


class EnrolmentOut(Out):
    """``inference.messages.Enrolment``."""

    worker_id: str
    pool_id: str
    partner_id: str
    dispatch_token: str
    gateway_urls: list[str]
    heartbeat_interval_ms: int
