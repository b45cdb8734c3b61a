"""Enrolment: a one-time token, a challenge over the release's bytes, a signature by the new key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from inference.messages import ByteRange, Capacity, Enrolment, EnrolRequest
from inference.worker.membership.control import control_post
from inference.worker.membership.errors import RefusedError
from inference.worker.membership.identity import Identity, token_digest
from inference.worker.membership.release import LocalRelease
from inference.worker.signing import WorkerKey


@dataclass(frozen=True, slots=True)
class Candidate:
    """What a worker says of itself when it enrols."""

    name: str
    endpoint: str
    release: str
    control_url: str
    files: LocalRelease
    key: WorkerKey
    capacity: Capacity

    def facts(self) -> dict[str, str]:
        """What its enrolment is made for."""
        return {
            "public_key": self.key.public_text,
            "endpoint": self.endpoint,
            "release": self.release,
            "release_digest": self.files.digest,
            "control_url": self.control_url,
        }


async def worker_enrol(*, candidate: Candidate, token: str, client: httpx.AsyncClient) -> Identity:
    """Enrol with ``token``, which is spent by it. Raises RefusedError or UnreachableError."""
    base = f"{candidate.control_url}/api/workers"
    challenge = await control_post(
        client, f"{base}/challenge", {"token": token, "release": candidate.release}
    )
    request = _answer(candidate, token, challenge)
    signature = candidate.key.sign(request.signing_bytes())
    answer = await control_post(client, f"{base}/enrol", request.to_dict() | {"signature": signature})
    try:
        enrolment = Enrolment.from_dict(answer)
        if not enrolment.gateway_urls or enrolment.heartbeat_interval_ms < 1:
            raise ValueError("it names no gateway or no heartbeat interval")
    except (ValueError, TypeError) as error:
        raise RefusedError(f"the control plane's answer is not understood: {error}") from None
    return Identity(enrolment=enrolment, token_digest=token_digest(token), **candidate.facts())


def _answer(candidate: Candidate, token: str, challenge: dict[str, Any]) -> EnrolRequest:
    try:
        wanted = str(challenge["release"])
        nonce = str(challenge["nonce"])
        ranges = [ByteRange.from_dict(span) for span in challenge["ranges"]]
        if wanted != candidate.release:
            message = f"the token is for release {wanted!r}, this worker serves {candidate.release!r}"
            raise RefusedError(message)
        proof = candidate.files.prove(nonce, ranges)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise RefusedError(f"the challenge cannot be answered: {error}") from None
    return EnrolRequest(
        token=token,
        nonce=nonce,
        name=candidate.name,
        endpoint=candidate.endpoint,
        public_key=candidate.key.public_text,
        release=candidate.release,
        release_digest=candidate.files.digest,
        proof=proof,
        capacity=candidate.capacity.to_dict(),
    )
