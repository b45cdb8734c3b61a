"""What an engine says of itself is exported as it is, whatever fields it has."""

from __future__ import annotations

import dataclasses

import pytest
from prometheus_client.parser import text_string_to_metric_families

from inference.engine.types import EngineStats
from inference.worker.metrics import WorkerMetrics
from inference.worker.options import threads_default

STATS = EngineStats(1, 2, 30, 4, 5, 6, 7, waiting_s=0.5)


@dataclasses.dataclass(frozen=True, slots=True)
class LaterStats(EngineStats):
    """With two figures that a later engine may have."""

    sheep_counted: int = 0
    mask_s: float = 0.0


def exported(stats: EngineStats) -> dict[str, tuple[str, float]]:
    metrics = WorkerMetrics()
    metrics.watch_engine(lambda: stats)
    families = text_string_to_metric_families(metrics.render().decode())
    return {sample.name: (family.type, sample.value) for family in families for sample in family.samples}


def test_a_state_is_a_gauge_and_a_count_a_counter() -> None:
    found = exported(STATS)
    assert found["tokenworks_worker_running"] == ("gauge", 1)
    assert found["tokenworks_worker_cache_pages_free"] == ("gauge", 4)
    assert found["tokenworks_worker_engine_generated_tokens_total"] == ("counter", 5)
    assert found["tokenworks_worker_engine_waiting_seconds_total"] == ("counter", 0.5)


def test_every_figure_is_exported_also_one_that_was_added_later() -> None:
    names = len(dataclasses.fields(EngineStats))
    later = LaterStats(**dataclasses.asdict(STATS), sheep_counted=41, mask_s=0.25)
    found = exported(later)
    assert found["tokenworks_worker_engine_sheep_counted_total"] == ("counter", 41)
    assert found["tokenworks_worker_engine_mask_seconds_total"] == ("counter", 0.25)
    assert len(found) - len(exported(STATS)) == 2
    assert len([name for name in exported(STATS) if "_created" not in name]) >= names


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (4, 3), (64, 63)])
def test_more_than_two_cores_leave_one_to_http(cores: int, threads: int) -> None:
    assert threads_default(cores) == threads
