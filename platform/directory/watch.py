"""Keeps Redis true to PostgreSQL: restores it when it is empty, repairs what a crash left unpublished."""

from __future__ import annotations

import time
from datetime import timedelta

import structlog

from core import redis_keys
from core.clock import clock
from directory.accounts import publish_accounts
from directory.everything import publish_all
from directory.keys import sync_keys
from directory.redis_client import redis_client
from directory.snapshots import publish_snapshot

REFRESH_EVERY_S = 3.0
ACCOUNTS_EVERY_S = 60.0
_OVERLAP = timedelta(seconds=60)  # longer than a transaction stays open after it took its time
_AT_START = timedelta(hours=24)

log = structlog.get_logger()


class Watcher:
    """Call ``step`` every second; it raises while PostgreSQL or Redis is away, and may simply be repeated."""

    def __init__(self) -> None:
        self._refresh_at = 0.0
        self._accounts_at = 0.0
        self._keys_since = clock.now() - _AT_START

    def step(self) -> None:
        """Publish everything if Redis is empty, else what changed and has not been published."""
        if not redis_client().exists(redis_keys.EPOCH):
            log.warning("redis holds no directory: publishing everything", epoch=publish_all())
        now_s = time.monotonic()
        if now_s >= self._refresh_at:
            self._refresh()
            self._refresh_at = now_s + REFRESH_EVERY_S
        if now_s >= self._accounts_at:
            publish_accounts()
            self._accounts_at = now_s + ACCOUNTS_EVERY_S

    def _refresh(self) -> None:
        if publish_snapshot():
            log.info("snapshot published")
        started_at = clock.now()
        sync_keys(since=self._keys_since)
        self._keys_since = started_at - _OVERLAP
