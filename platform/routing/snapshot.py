"""The data plane's view of the consortium: published by ``directory``, read by gateways. No Django."""

from __future__ import annotations

import msgspec

from billing.rating import Price


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Routing policy of the charter. Weights are integers so that a replay is exact on any machine.

    A candidate's cost is ``price_weight × price/cheapest + load_weight × load``, in ppm; the choice is
    random with probability falling by half for every ``half_cost_ppm`` of extra cost.
    """

    name: str
    price_weight: int
    load_weight: int
    half_cost_ppm: int


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A release tenants may ask for by ``name``."""

    name: str
    release_id: str
    release_digest: str
    max_model_len: int
    created: int
    vocab_size: int


class WorkerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One enrolled worker with its owner and price. ``state``: active or draining."""

    worker_id: str
    pool_id: str
    partner_id: str
    partner_slug: str
    region: str
    model: str
    release_digest: str
    endpoint: str
    public_key: str
    max_running: int
    state: str
    price: Price


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Everything routing needs, with a version that only grows."""

    version: int
    published_at_ms: int
    charter_digest: str
    policy: Policy
    models: tuple[Model, ...]
    workers: tuple[WorkerEntry, ...]


class WorkerLoad(msgspec.Struct, frozen=True, kw_only=True):
    """The newest heartbeat a gateway accepted, stored under ``tw:load:<worker_id>`` with an expiry."""

    worker_id: str
    seq: int
    at_ms: int
    state: str
    running: int
    queued: int
    max_running: int


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a gateway knows of an API key, stored under ``tw:key:<sha256 hex>``. Revoking deletes it."""

    key_id: str
    tenant_id: str
    project_id: str
    expires_at_ms: int | None = None
    requests_per_minute: int = 6000
    tokens_per_minute: int = 10_000_000
    max_concurrency: int = 512
    models: tuple[str, ...] | None = None
