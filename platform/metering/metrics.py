"""What the meter tells Prometheus."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

POSTED = Counter("tokenworks_meter_events_posted", "Usage events posted to the ledger")
REPEATED = Counter("tokenworks_meter_events_repeated", "Usage events that were in the ledger already")
DEAD = Counter("tokenworks_meter_events_dead", "Usage events refused; each waits in the dead stream")
POST_SECONDS = Histogram(
    "tokenworks_meter_post_seconds",
    "Time to post one batch",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
WAITING = Gauge("tokenworks_meter_stream_entries", "Entries in the usage stream")
FAULTS = Counter("tokenworks_meter_faults", "Failed rounds by task; each is retried", ["task"])
SETTLED = Counter("tokenworks_sweeper_holds", "Orphaned holds by what the sweeper did with them", ["outcome"])
ORPHANS = Gauge("tokenworks_sweeper_orphans", "Orphaned holds still waiting for a worker's word")
