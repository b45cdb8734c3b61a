"""What routing is asked, sees and answers. All integers and text, so a record replays on any machine."""

from __future__ import annotations

import msgspec

from billing.rating import Price
from routing.snapshot import Policy

SCHEMA = 1


class Constraints(msgspec.Struct, frozen=True, kw_only=True):
    """What of a request may influence routing: its size and the tenant's provider preferences.

    ``prompt_tokens`` and ``completion_tokens`` are the hold's bounds. Partners are named by slug. Maximum
    prices are what the tenant pays, levy included, in nano-dollars per million tokens.
    """

    model: str
    prompt_tokens: int
    completion_tokens: int
    order: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    max_input_nano_per_mtok: int | None = None
    max_output_nano_per_mtok: int | None = None
    allow_fallbacks: bool = True

    @property
    def is_open(self) -> bool:
        """Whether every partner may serve it."""
        return (
            self.only is None
            and not self.ignore
            and not self.order
            and self.max_input_nano_per_mtok is None
            and self.max_output_nano_per_mtok is None
        )


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway knows of a worker now. ``state``: a heartbeat's state, or ``unreachable``."""

    state: str
    in_flight: int


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One eligible worker with everything its cost was computed from.

    ``tier`` 0 is tried first (the request's ``order``); ``cost_ppm`` is the policy's; the worker is drawn
    within the first tier with probability proportional to ``weight``.
    """

    worker_id: str
    partner_id: str
    partner: str
    pool_id: str
    price: Price
    in_flight: int
    max_running: int
    tier: int
    cost_ppm: int
    weight: int


class Exclusion(msgspec.Struct, frozen=True, kw_only=True):
    """A worker of the model that could not be chosen, and why.

    ``code``: release_mismatch, not_active, no_heartbeat, not_ready, unreachable, not_in_only, ignored,
    over_max_price, not_in_order.
    """

    worker_id: str
    partner: str
    code: str


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """A choice with all that is needed to repeat it. ``ranked`` starts with ``chosen``; both may be empty."""

    schema: int = SCHEMA
    policy: Policy
    policy_digest: str
    snapshot_version: int
    snapshot_digest: str
    request: Constraints
    seed: str
    eligible: tuple[Candidate, ...]
    excluded: tuple[Exclusion, ...]
    ranked: tuple[str, ...]
    chosen: str | None
    reason: str

    def candidate(self, worker_id: str) -> Candidate:
        """The eligible worker with this id. Raises KeyError."""
        for candidate in self.eligible:
            if candidate.worker_id == worker_id:
                return candidate
        raise KeyError(worker_id)
