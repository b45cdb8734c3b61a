"""What a gateway says about a request in its headers."""

from __future__ import annotations

import re

from inference.messages import (
    HEADER_ADAPTER,
    HEADER_CACHE_SALT,
    HEADER_DEADLINE,
    HEADER_PRIORITY,
    HEADER_REQUEST_ID,
    HEADER_ROUTING,
)
from inference.worker.prompts import Caller
from inference.worker.refusal import invalid
from inference.worker.server.asgi import Scope, header

_REQUEST_ID = re.compile(r"req_[0-9a-z]{1,64}")
_PRIORITY = re.compile(r"-?(100|[0-9]{1,2})")
_SALT_CHARS = 256
_DEADLINE_MS = re.compile(r"[0-9]{1,7}")
DEADLINE_MAX_MS = 3_600_000


def request_id_of(scope: Scope) -> str:
    """The request's id. Raises RefusalError (400)."""
    request_id = header(scope, HEADER_REQUEST_ID.encode()) or ""
    if not _REQUEST_ID.fullmatch(request_id):
        raise invalid(
            f"The header {HEADER_REQUEST_ID} must carry a request id such as req_….",
            code="invalid_request_id",
        )
    return request_id


def caller_of(scope: Scope) -> Caller:
    """Priority (lower goes first, 0 without the header), deadline, cache salt, adapter and routing profile.

    Raises RefusalError (400).
    """
    priority = header(scope, HEADER_PRIORITY.encode()) or "0"
    salt = header(scope, HEADER_CACHE_SALT.encode()) or ""
    if not _PRIORITY.fullmatch(priority) or len(salt) > _SALT_CHARS:
        raise invalid("The gateway's headers for this worker are malformed.", code="invalid_header")
    return Caller(
        priority=int(priority),
        deadline_s=_deadline_s(header(scope, HEADER_DEADLINE.encode())),
        salt=salt,
        adapter=header(scope, HEADER_ADAPTER.encode()) or None,
        routing=header(scope, HEADER_ROUTING.encode()) or None,
    )


def _deadline_s(text: str | None) -> float | None:
    """How long the request may wait for its beginning; None: as long as it takes."""
    if text is None:
        return None
    milliseconds = int(text) if _DEADLINE_MS.fullmatch(text) else 0
    if not 1 <= milliseconds <= DEADLINE_MAX_MS:
        raise invalid(
            f"The header {HEADER_DEADLINE} must carry whole milliseconds, 1 to {DEADLINE_MAX_MS}.",
            code="invalid_header",
        )
    return milliseconds / 1000
