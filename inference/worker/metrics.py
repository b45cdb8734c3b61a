"""Prometheus metrics of one worker. Gauges are read from the engine when they are scraped."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inference.engine.types import EngineStats

_FIRST_TOKEN_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 30, 60)
_BETWEEN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.5, 1, 5)


class WorkerMetrics:
    """Counters and histograms the request path writes to."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.first_token_s = Histogram(
            "tokenworks_worker_first_token_seconds",
            "From the request's arrival to its first token",
            buckets=_FIRST_TOKEN_BUCKETS_S,
            registry=self.registry,
        )
        self.between_tokens_s = Histogram(
            "tokenworks_worker_inter_token_seconds",
            "Between two token events of one request",
            buckets=_BETWEEN_BUCKETS_S,
            registry=self.registry,
        )
        self.tokens = Counter(
            "tokenworks_worker_tokens", "Tokens in journal entries", ["kind"], registry=self.registry
        )
        self.requests = Counter(
            "tokenworks_worker_requests",
            "Journalled requests",
            ["endpoint", "finish_reason"],
            registry=self.registry,
        )
        self.refusals = Counter(
            "tokenworks_worker_refusals",
            "Requests refused before any work",
            ["status"],
            registry=self.registry,
        )
        self.heartbeats = Counter(
            "tokenworks_worker_heartbeats", "Heartbeats sent, by outcome", ["outcome"], registry=self.registry
        )

    def watch_engine(self, stats: Callable[[], EngineStats]) -> None:
        """Export the engine's figures from now on."""
        self.registry.register(_EngineGauges(stats))

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)


class _EngineGauges(Collector):
    def __init__(self, stats: Callable[[], EngineStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        stats = self._stats()
        for name, text, value in (
            ("running", "Requests decoded together", stats.running),
            ("queued", "Requests waiting for a place", stats.queued),
            ("max_running", "Places for running requests", stats.max_running),
            ("cache_pages", "Pages of the latent cache", stats.pages_total),
            ("cache_pages_free", "Free pages of the latent cache", stats.pages_free),
            ("engine_steps", "Engine steps since the start", stats.steps),
            ("engine_generated_tokens", "Tokens generated since the start", stats.generated_tokens),
        ):
            yield GaugeMetricFamily(f"tokenworks_worker_{name}", text, value=value)
