"""How a worker joins a pool. No session and no key: the one-time token speaks."""

from __future__ import annotations

from dataclasses import asdict

from django.http import HttpRequest
from ninja import Router

from api.enrolment import worker_admit, worker_challenge
from api.publishing import consortium_publish
from api.schemas.workers import ChallengeIn, ChallengeOut, EnrolIn, EnrolmentOut
from inference.messages import EnrolRequest

router = Router(tags=["workers"], auth=None)


@router.post("/workers/challenge", response=ChallengeOut, summary="Ask what to prove")
def challenge_create(request: HttpRequest, payload: ChallengeIn) -> ChallengeOut:
    """A new challenge replaces the one before."""
    challenge = worker_challenge(token=payload.token, release_slug=payload.release)
    return ChallengeOut.model_validate(asdict(challenge))


@router.post("/workers/enrol", response=EnrolmentOut, summary="Enrol a worker")
def enrolment_create(request: HttpRequest, payload: EnrolIn) -> EnrolmentOut:
    """Uses the token up. Gateways know the worker when this is answered."""
    message = EnrolRequest.from_dict(payload.model_dump(exclude={"signature"}))
    enrolment = worker_admit(message, payload.signature)
    consortium_publish()
    return EnrolmentOut.model_validate(enrolment.to_dict())
