"""Names in Redis shared by control plane, gateways and meter: one place, one prefix."""

from __future__ import annotations

EPOCH = "tw:epoch"  # set when the directory was published; its absence means Redis lost its data
SNAPSHOT = "tw:snapshot"  # JSON routing.snapshot.Snapshot
USAGE_STREAM = "tw:usage"  # field "event": JSON metering.events.UsageEvent
USAGE_DEAD = "tw:usage:dead"  # events the meter refused, with the reason
METER_GROUP = "meter"
HOLDS = "tw:holds"  # sorted set: request id by creation time in ms


def key_record(digest: str) -> str:
    """JSON routing.snapshot.KeyRecord of the API key with this SHA-256."""
    return f"tw:key:{digest}"


def account(tenant_id: str) -> str:
    """Hash: credit, version (of the ledger account), pending, held (nano-dollars), inflight."""
    return f"tw:acct:{tenant_id}"


def bucket(key_id: str) -> str:
    """Hash: token bucket of one API key."""
    return f"tw:rate:{key_id}"


def hold(request_id: str) -> str:
    """Hash: tenant_id, key_id, amount_nano, gateway_id, created_ms, context (JSON)."""
    return f"tw:hold:{request_id}"


def settled(request_id: str) -> str:
    """Marker that a hold was settled or voided; makes settling idempotent."""
    return f"tw:settled:{request_id}"


def load(worker_id: str) -> str:
    """JSON routing.snapshot.WorkerLoad with an expiry of a few heartbeats."""
    return f"tw:load:{worker_id}"


def gateway_alive(gateway_id: str) -> str:
    """Present while the gateway lives (renewed every second)."""
    return f"tw:gateway:{gateway_id}"
