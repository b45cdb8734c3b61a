"""The directory's connection to Redis, one per process."""

from __future__ import annotations

from functools import lru_cache

import redis
from django.conf import settings

TIMEOUT_S = 5.0


def redis_client() -> redis.Redis:
    """A client for the REDIS_URL of the settings; thread-safe, reconnects by itself."""
    return _client(settings.REDIS_URL)


@lru_cache(maxsize=4)
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S)
