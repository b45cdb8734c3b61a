"""Seeds of routing decisions: secret on the day, revealed afterwards, so nobody grinds and all can replay."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime

from core.secrets import derive_token


def day_key(secret: str, at_ms: int) -> bytes:
    """The key of the UTC day of ``at_ms`` (epoch milliseconds); revealing one day's reveals no other."""
    day = datetime.fromtimestamp(at_ms // 1000, UTC).date().isoformat()
    return bytes.fromhex(derive_token(secret, "routing-day", day))


def request_seed(key: bytes, request_id: str) -> bytes:
    """32 bytes: HMAC-SHA-256 of the request id under the day's key."""
    return hmac.digest(key, request_id.encode(), hashlib.sha256)
