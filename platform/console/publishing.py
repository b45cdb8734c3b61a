"""Tell the data plane about a change that has been committed.

When Redis is away the change stands all the same: the directory's watch publishes it later. So a page never
fails for it; the log says that gateways learn late.
"""

from __future__ import annotations

from collections.abc import Callable

import redis
import structlog

from directory import publish_account, publish_key, unpublish_key
from tenants.models import ApiKey

log = structlog.get_logger()


def key_publish(key: ApiKey) -> bool:
    """Make a fresh key known to the gateways; False when they learn of it later."""
    return _attempt("key_publish", key.id, lambda: publish_key(key))


def key_withdraw(key: ApiKey) -> bool:
    """Make the gateways forget a revoked key; False when they learn of it later."""
    return _attempt("key_withdraw", key.id, lambda: unpublish_key(key.digest))


def account_publish(tenant_id: str) -> bool:
    """Tell the gateways a tenant's new balance; False when they learn of it later."""
    return _attempt("account_publish", tenant_id, lambda: publish_account(tenant_id))


def _attempt(what: str, object_id: str, publish: Callable[[], object]) -> bool:
    try:
        publish()
    except redis.RedisError as error:
        log.warning("publish_postponed", what=what, object_id=object_id, error=str(error))
        return False
    return True
