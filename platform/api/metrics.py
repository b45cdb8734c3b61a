"""What the control plane counts, in Prometheus' form."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

REQUESTS = Counter("tokenworks_control_requests_total", "Requests answered.", ["method", "route", "status"])
LATENCY = Histogram(
    "tokenworks_control_request_seconds",
    "Time from the request's arrival to its answer.",
    ["route"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
