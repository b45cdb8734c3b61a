"""API keys for admission: a record under the digest of each key that is neither revoked nor expired."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from django.db.models import Q

from core import redis_keys
from core.clock import clock, epoch_ms
from core.ids import id_floor
from directory.redis_client import redis_client
from routing.snapshot import KeyRecord
from tenants.models import ApiKey
from tenants.scope import system_scope

PAGE = 500
_EXPIRED_KEPT_MS = 3_600_000  # an expired key is told so for an hour, then forgotten
_ENCODER = msgspec.json.Encoder()


def publish_key(api_key: ApiKey) -> bool:
    """Make the key known to gateways, or unknown when it is revoked. Returns whether it is known now.

    The row is read again after writing: whoever revokes at the same moment either is seen here, or deletes
    after us.
    """
    _write([api_key])
    with system_scope():
        fresh = ApiKey.objects.select_related("tenant").filter(id=api_key.id).first()
    if fresh is None or not _is_valid(fresh):
        unpublish_key(api_key.digest)
        return False
    return True


def unpublish_key(digest: str) -> None:
    """Make the key with this digest unknown to gateways, at once."""
    redis_client().delete(redis_keys.key_record(digest))


def publish_keys() -> int:
    """Publish every valid key, a page at a time, and withdraw what was revoked meanwhile."""
    started_at, count, after = clock.now(), 0, ""
    while True:
        with system_scope():
            valid = ApiKey.objects.filter(id__gt=after, revoked_at=None, tenant__is_active=True)
            page = list(valid.exclude(expires_at__lte=clock.now()).order_by("id")[:PAGE])
        if not page:
            break
        _write(page)
        count += len(page)
        after = page[-1].id
    sync_keys(since=started_at)
    return count


def sync_keys(*, since: datetime) -> int:
    """Bring keys made or revoked after ``since`` up to date in Redis. Returns how many there were."""
    first_id = id_floor("key", epoch_ms(since))  # ids begin with their time: an index range
    with system_scope():
        changed = ApiKey.objects.filter(Q(id__gte=first_id) | Q(revoked_at__gte=since))
        rows = list(changed.select_related("tenant"))
    for row in rows:
        if _is_valid(row):
            publish_key(row)
        else:
            unpublish_key(row.digest)
    return len(rows)


def _write(keys: Sequence[ApiKey]) -> None:
    with redis_client().pipeline(transaction=False) as pipeline:
        for key in keys:
            expires_at_ms = epoch_ms(key.expires_at) if key.expires_at else None
            record = KeyRecord(
                key_id=key.id,
                tenant_id=key.tenant_id,
                project_id=key.project_id,
                expires_at_ms=expires_at_ms,
                requests_per_minute=key.requests_per_minute,
                max_concurrency=key.max_concurrency,
            )
            forget_at_ms = expires_at_ms + _EXPIRED_KEPT_MS if expires_at_ms is not None else None
            pipeline.set(redis_keys.key_record(key.digest), _ENCODER.encode(record), pxat=forget_at_ms)
        pipeline.execute()


def _is_valid(key: ApiKey) -> bool:
    expired = key.expires_at is not None and key.expires_at <= clock.now()
    return key.revoked_at is None and key.tenant.is_active and not expired
