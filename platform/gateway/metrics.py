"""Prometheus metrics of one gateway process."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_FAST = (0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
_SLOW = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class GatewayMetrics:
    """Counters and histograms; label children are cached because looking them up costs more than counting."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "tokenworks_gateway_requests",
            "Requests answered",
            ("endpoint", "status", "partner"),
            registry=self.registry,
        )
        self.added_s = Histogram(
            "tokenworks_gateway_added_seconds",
            "Time added by the gateway, the worker's own excluded",
            buckets=_FAST,
            registry=self.registry,
        )
        self.first_byte_s = Histogram(
            "tokenworks_gateway_first_token_seconds",
            "From request to the first byte of the answer",
            buckets=_SLOW,
            registry=self.registry,
        )
        self.redis_s = Histogram(
            "tokenworks_gateway_redis_seconds",
            "Round trip of admission",
            buckets=_FAST,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "tokenworks_gateway_in_flight", "Requests being served", registry=self.registry
        )
        self.backlog_bytes = Gauge(
            "tokenworks_gateway_settle_backlog_bytes",
            "Journal bytes that Redis has not confirmed",
            registry=self.registry,
        )
        self.unresolved = Gauge(
            "tokenworks_gateway_unresolved",
            "Requests whose worker is still asked for its journal entry",
            registry=self.registry,
        )
        self._failovers = Counter(
            "tokenworks_gateway_failovers",
            "Requests sent on to another worker, by the partner that failed",
            ("partner",),
            registry=self.registry,
        )
        self._requests_of = lru_cache(4096)(self._requests.labels)

    def answered(self, *, endpoint: str, status: int, partner: str) -> None:
        """Count one answer; ``partner`` is empty when no worker served it."""
        self._requests_of(endpoint, str(status), partner).inc()

    def failed_over(self, partner: str) -> None:
        """Count one fail-over."""
        self._failovers.labels(partner).inc()

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self.registry)
