"""How a worker joins a pool: a one-time token, claimed by one conditional update.

Whether the worker holds the release it names is for ``releases`` to say; the two meet in the control API.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from core.clock import clock
from core.errors import ApiError
from core.secrets import digest_secret, looks_like_secret
from core.signing import signature_is_valid
from inference.messages import EnrolRequest
from partners.models import EnrolmentToken, Worker, WorkerState
from tenants.scope import nested_transaction

CAPACITY_FIELDS = ("max_running", "cache_tokens", "max_model_len")
CAPACITY_MAX = 1 << 40
RUNNING_MAX = 65_536
ENDPOINT_CHARS_MAX = 200


@dataclass(frozen=True)
class OpenToken:
    """A token that still admits a worker, and the nonce of its newest challenge."""

    id: str
    pool_id: str
    partner_id: str
    nonce: str | None


def token_refused() -> ApiError:
    """401, the same whether the token is unknown, expired or used."""
    return ApiError(
        401,
        "The enrolment token is unknown, expired or used. Ask the foundation for a fresh one.",
        type="authentication_error",
        code="invalid_enrolment_token",
    )


def token_open(plain: str) -> OpenToken:
    """The token, when it is unused and in time. Raises ApiError 401."""
    token = None
    if looks_like_secret(plain):
        token = (
            EnrolmentToken.objects.filter(
                digest=digest_secret(plain), used_at__isnull=True, expires_at__gt=clock.now()
            )
            .select_related("pool")
            .first()
        )
    if token is None:
        raise token_refused()
    return OpenToken(id=token.id, pool_id=token.pool_id, partner_id=token.pool.partner_id, nonce=token.nonce)


def token_challenge(token: OpenToken) -> str:
    """A fresh nonce for the token; an earlier one no longer counts."""
    nonce = secrets.token_hex(32)
    claimed = EnrolmentToken.objects.filter(id=token.id, used_at__isnull=True).update(nonce=nonce)
    if not claimed:
        raise token_refused()
    return nonce


def enrolled_with(*, token: str, public_key: str) -> Worker | None:
    """The worker with this key that used the token up: it repeats a request whose answer was lost."""
    used = EnrolmentToken.objects.filter(digest=digest_secret(token), used_by__public_key=public_key)
    found = used.select_related("used_by__pool").first()
    return found.used_by if found else None


def enrol_request_check(request: EnrolRequest, signature: str) -> None:
    """Raises ApiError 403 without proof of possession of the key, 422 for a field that makes no sense."""
    _check_public_key(request.public_key)
    if not signature_is_valid(
        public_text=request.public_key, message=request.signing_bytes(), signature=signature
    ):
        raise ApiError(
            403,
            "The signature does not fit the request and the public key in it.",
            type="permission_error",
            code="bad_signature",
            param="signature",
        )
    if not 1 <= len(request.name) <= 120 or not request.name.isprintable():
        raise _invalid("name", "has 1 to 120 printable characters")
    _check_endpoint(request.endpoint)
    _check_capacity(request.capacity)


def worker_enrol(*, token: OpenToken, request: EnrolRequest) -> Worker:
    """Use the token up for a new worker. A worker that served at the same place in the pool is retired.

    Raises ApiError 409 when the key is another worker's, 401 when the token was used meanwhile.
    The caller has checked request and proof, and publishes a new snapshot after the commit.
    """
    with nested_transaction():
        fresh = Worker(
            pool_id=token.pool_id,
            name=request.name,
            endpoint=request.endpoint.rstrip("/"),
            public_key=request.public_key,
            release_digest=request.release_digest,
            release_slug=request.release,
            capacity=dict(request.capacity),
            max_running=request.capacity["max_running"],
        )
        Worker.objects.filter(pool_id=token.pool_id, endpoint=fresh.endpoint).exclude(
            state=WorkerState.RETIRED
        ).update(state=WorkerState.RETIRED)
        Worker.objects.bulk_create([fresh], ignore_conflicts=True)
        if not Worker.objects.filter(id=fresh.id).exists():
            raise ApiError(
                409,
                "This public key belongs to an enrolled worker. Start with a fresh identity.",
                code="public_key_known",
                param="public_key",
            )
        claimed = EnrolmentToken.objects.filter(
            id=token.id, nonce=token.nonce, used_at__isnull=True, expires_at__gt=clock.now()
        ).update(used_at=clock.now(), used_by=fresh.id)
        if claimed != 1:
            raise token_refused()
    return fresh


def _check_public_key(text: str) -> None:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:
        raw = b""
    if len(raw) != 32 or base64.b64encode(raw).decode() != text:
        raise _invalid("public_key", "is base64 of the 32 bytes of an Ed25519 public key")


def _check_endpoint(text: str) -> None:
    try:
        url = urlsplit(text)
        well_formed = url.port != 0
    except ValueError:
        raise _invalid("endpoint", "is no URL") from None
    bare = url.path in ("", "/") and not url.query and not url.fragment and url.username is None
    if len(text) > ENDPOINT_CHARS_MAX or url.scheme not in ("http", "https") or not url.hostname:
        raise _invalid("endpoint", f"is an http(s) URL of at most {ENDPOINT_CHARS_MAX} characters")
    if not (well_formed and bare and text.isascii() and text.isprintable()):
        raise _invalid("endpoint", "is scheme, host and port, nothing more")


def _check_capacity(capacity: Mapping[str, int]) -> None:
    if set(capacity) != set(CAPACITY_FIELDS):
        raise _invalid("capacity", f"has the fields {', '.join(CAPACITY_FIELDS)}")
    for field, value in capacity.items():
        most = RUNNING_MAX if field == "max_running" else CAPACITY_MAX
        if type(value) is not int or not 1 <= value <= most:
            raise _invalid(f"capacity.{field}", f"is a whole number from 1 to {most}")


def _invalid(param: str, rule: str) -> ApiError:
    return ApiError(422, f"{param} {rule}.", code="invalid_value", param=param)
