"""Telling the data plane what has been committed.

The rows are the truth; what is published follows from them and may be repeated. When Redis is away the
change stands all the same, and the directory's watch publishes it later: a request never fails for it.
"""

from __future__ import annotations

from collections.abc import Callable

import redis
import structlog

from directory import publish_account, publish_all, publish_key, publish_snapshot, unpublish_key
from tenants.models import ApiKey

_log = structlog.get_logger("api")


def key_publish(key: ApiKey) -> None:
    """Let gateways accept the key."""
    _attempt("key_publish", lambda: publish_key(key))


def key_withdraw(key: ApiKey) -> None:
    """Make gateways refuse the key."""
    _attempt("key_withdraw", lambda: unpublish_key(key.digest))


def balance_publish(tenant_id: str) -> None:
    """Let gateways see the tenant's new balance."""
    _attempt("balance_publish", lambda: publish_account(tenant_id))


def consortium_publish() -> None:
    """Let gateways see workers, prices and policy as they are now."""
    _attempt("consortium_publish", publish_snapshot)


def everything_publish() -> None:
    """All of it."""
    _attempt("everything_publish", publish_all)


def _attempt(what: str, publish: Callable[[], object]) -> None:
    try:
        publish()
    except redis.RedisError as error:
        _log.warning("publish_postponed", what=what, error=type(error).__name__)
