"""How a worker joins: ``partners`` knows tokens and workers, ``releases`` knows what must be proved."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from core.errors import ApiError
from core.secrets import derive_token
from inference.messages import ByteRange, Enrolment, EnrolRequest
from partners.enrolment import (
    OpenToken,
    enrol_request_check,
    enrolled_with,
    token_challenge,
    token_open,
    worker_enrol,
)
from partners.models import Worker
from partners.selectors import offer_in_force
from releases.challenge import challenge_ranges, proof_is_valid
from releases.models import Release
from releases.selectors import release_available, releases_available
from tenants.scope import system_scope

HEARTBEAT_INTERVAL_MS = 1000


@dataclass(frozen=True)
class Challenge:
    """Hash these byte ranges of the release after the nonce."""

    nonce: str
    release: str
    ranges: tuple[ByteRange, ...]


def worker_challenge(*, token: str, release_slug: str | None) -> Challenge:
    """A fresh challenge for a token. Raises ApiError 401, or 403 when the partner offers no such release."""
    with system_scope():
        opened = token_open(token)
        release = _release_for(opened, release_slug)
        nonce = token_challenge(opened)
    return Challenge(nonce=nonce, release=release.slug, ranges=tuple(challenge_ranges(release, nonce)))


def worker_admit(request: EnrolRequest, signature: str) -> Enrolment:
    """Enrol the worker. Repeating the request that succeeded gives the same answer again.

    Raises ApiError 401 for the token, 403 for signature, release or proof, 409 for a known key.
    """
    enrol_request_check(request, signature)
    with system_scope():
        worker = enrolled_with(token=request.token, public_key=request.public_key) or _admit(request)
        return Enrolment(
            worker_id=worker.id,
            pool_id=worker.pool_id,
            partner_id=worker.pool.partner_id,
            dispatch_token=derive_token(settings.DISPATCH_SECRET, "dispatch", worker.id),
            gateway_urls=[settings.GATEWAY_URL],
            heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS,
        )


def _admit(request: EnrolRequest) -> Worker:
    token = token_open(request.token)
    if token.nonce is None or token.nonce != request.nonce:
        raise _forbidden(
            "The proof answers another challenge. Ask for a new one.", "stale_challenge", "nonce"
        )
    release = _release_for(token, request.release)
    if request.release_digest != release.digest:
        raise _forbidden(
            f"This is not the release {release.slug} that is served now ({release.digest[:12]}…).",
            "release_mismatch",
            "release_digest",
        )
    if not proof_is_valid(release, request.nonce, request.proof):
        raise _forbidden("The proof does not fit the release's files.", "bad_proof", "proof")
    try:
        return worker_enrol(token=token, request=request)
    except ApiError as error:
        # two deliveries of one request: the other one won
        first = enrolled_with(token=request.token, public_key=request.public_key)
        if first is None:
            raise error from None
        return first


def _release_for(token: OpenToken, slug: str | None) -> Release:
    """The release the worker is to serve: the one named, or the only one its partner offers."""
    offered = [
        release
        for release in ([release_available(slug)] if slug else releases_available())
        if release and offer_in_force(partner_id=token.partner_id, release_slug=release.slug)
    ]
    if len(offered) == 1:
        return offered[0]
    if offered:
        raise ApiError(
            422, "Your partner offers several releases: name one.", code="release_required", param="release"
        )
    raise _forbidden("Your partner offers no such release that is available.", "release_mismatch", "release")


def _forbidden(message: str, code: str, param: str) -> ApiError:
    return ApiError(403, message, type="permission_error", code=code, param=param)
