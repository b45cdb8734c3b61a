"""The same request twice, with the same ``Idempotency-Key``, is done once and answered twice.

An answer may hold a secret that is shown once, so it is kept encrypted, and for a day only.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import timedelta

from cryptography.fernet import Fernet
from django.conf import settings
from django.db import connections

from core.clock import clock
from core.errors import ApiError
from core.secrets import derive_token
from tenants.models import IdempotentAnswer
from tenants.scope import APP

KEPT_FOR = timedelta(hours=24)
KEY_CHARS_MAX = 255


def answer_once(
    *, tenant_id: str, actor: str, key: str | None, request: bytes, produce: Callable[[], bytes]
) -> bytes:
    """The answer of ``produce``, or the one given before to the same ``key`` of the same ``actor``.

    Runs in the caller's tenant scope, whose transaction makes deed and memory one. Without a key it always
    produces. Raises ApiError 422 when ``key`` came with another ``request`` before.
    """
    if key is None:
        return produce()
    if not 1 <= len(key) <= KEY_CHARS_MAX or not key.isprintable():
        raise ApiError(
            400,
            f"Idempotency-Key has 1 to {KEY_CHARS_MAX} printable characters.",
            code="invalid_idempotency_key",
        )
    _wait_for_others(tenant_id, actor, key)
    IdempotentAnswer.objects.filter(created_at__lte=clock.now() - KEPT_FOR).delete()
    request_sha256 = hashlib.sha256(request).hexdigest()
    known = IdempotentAnswer.objects.filter(tenant_id=tenant_id, actor=actor, key=key).first()
    if known is None:
        answer = produce()
        IdempotentAnswer.objects.create(
            tenant_id=tenant_id,
            actor=actor,
            key=key,
            request_sha256=request_sha256,
            answer=_cipher(tenant_id).encrypt(answer),
        )
        return answer
    if known.request_sha256 != request_sha256:
        raise ApiError(
            422,
            "This Idempotency-Key was used with another request. Use a fresh one for a new request.",
            code="idempotency_key_reused",
        )
    return _cipher(tenant_id).decrypt(bytes(known.answer))


def _wait_for_others(*parts: str) -> None:
    """Let one transaction at a time work on a key."""
    with connections[APP].cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", ("\x1f".join(parts),))


def _cipher(tenant_id: str) -> Fernet:
    secret = bytes.fromhex(derive_token(settings.SECRET_KEY, "idempotency", tenant_id))
    return Fernet(base64.urlsafe_b64encode(secret))
