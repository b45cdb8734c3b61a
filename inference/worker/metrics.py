"""Prometheus metrics of one worker. The engine's figures are read when they are scraped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from inference.engine.types import EngineStats
from inference.worker.latencies import Latencies

_FIRST_TOKEN_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 30, 60)
_BETWEEN_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.5, 1, 5)
_NOW = {
    "running": ("running", "Requests decoded together"),
    "queued": ("queued", "Requests waiting for a place"),
    "max_running": ("max_running", "Places for running requests"),
    "pages_total": ("cache_pages", "Pages of the latent cache"),
    "pages_free": ("cache_pages_free", "Free pages of the latent cache"),
}


class WorkerMetrics:
    """Counters and histograms the request path writes to."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.first_token_s = Latencies(
            "tokenworks_worker_first_token_seconds",
            "From the request's arrival to its first token",
            _FIRST_TOKEN_BUCKETS_S,
        )
        self.between_tokens_s = Latencies(
            "tokenworks_worker_inter_token_seconds",
            "Between two token events of one request",
            _BETWEEN_BUCKETS_S,
        )
        self.registry.register(self.first_token_s)
        self.registry.register(self.between_tokens_s)
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
        self.registry.register(_EngineFigures(stats))

    def render(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)


class _EngineFigures(Collector):
    """Every number of the engine's statistics, also one that was added later: what is a state now is a gauge,
    all else counts since the engine's start. Names that end in ``_s`` are seconds.
    """

    def __init__(self, stats: Callable[[], EngineStats]) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        for name, value in dataclasses.asdict(self._stats()).items():
            if name in _NOW:
                short, text = _NOW[name]
                yield GaugeMetricFamily(f"tokenworks_worker_{short}", text, value=value)
            else:
                long = f"{name[:-2]}_seconds" if name.endswith("_s") else name
                text = f"{long.replace('_', ' ').capitalize()} of the engine since its start"
                yield CounterMetricFamily(f"tokenworks_worker_engine_{long}", text, value=value)
