"""Publishing all there is, for a Redis that is new or has lost its data."""

from __future__ import annotations

import secrets

from core import redis_keys
from directory.accounts import publish_accounts
from directory.keys import publish_keys
from directory.redis_client import redis_client
from directory.snapshots import publish_snapshot


def publish_all() -> str:
    """Publish everything, then a fresh epoch: gateways see it change and settle again what may be lost.

    Returns the epoch.
    """
    publish_snapshot()
    publish_accounts()
    publish_keys()
    epoch = secrets.token_hex(8)
    redis_client().set(redis_keys.EPOCH, epoch)
    return epoch
