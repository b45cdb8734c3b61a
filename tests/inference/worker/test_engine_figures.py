"""The figures that /metrics shows of a real engine, against what was asked of it over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from inference.engine import AsyncEngine, EngineConfig
from inference.messages import Enrolment
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write
from inference.worker.journal.journal import Journal
from inference.worker.signing import WorkerKey
from tests.inference.models.test_qwen3_moe import QWEN
from tests.inference.worker.conftest import Worker, worker_serving

NANO = Path(__file__).parents[3] / "inference/models/nano"
COMPLETIONS = "/v1/completions"
ENGINE = "tokenworks_worker_engine_"
CONFIG = EngineConfig(page_size=4, pages=512, max_running=1)


@pytest.fixture
def parts(journal: Journal, key: WorkerKey, enrolment: Enrolment) -> tuple[Journal, WorkerKey, Enrolment]:
    return journal, key, enrolment


@asynccontextmanager
async def served(model_dir: Path, config: EngineConfig, parts: Any) -> AsyncIterator[Worker]:
    engine = AsyncEngine.load(model_dir, config)
    await engine.start()
    async with worker_serving(engine, *parts) as worker:
        yield worker
    await engine.close()


async def figures(worker: Worker) -> dict[str, float]:
    """Samples without labels, once the engine has nothing to do."""
    while True:
        text = (await worker.client.get("/metrics")).text
        families = text_string_to_metric_families(text)
        found = {one.name: one.value for family in families for one in family.samples if not one.labels}
        if not found["tokenworks_worker_running"] and not worker.runtime.in_flight:
            return {name.removeprefix(ENGINE): value for name, value in found.items()}
        await asyncio.sleep(0.005)


def body(prompt: object, **fields: object) -> dict[str, Any]:
    return {"model": "tokenworks-test", "prompt": prompt, "temperature": 0, "ignore_eos": True} | fields


async def test_counts_are_those_of_the_answers_and_drafts_that_came_true_are_counted(parts: Any) -> None:
    """On nano, whose prediction module is trained."""
    start = "import os\n\n\ndef paths(folder):\n    for name in os.listdir(folder):\n        "
    config = EngineConfig(page_size=4, pages=512, max_running=4, speculate=True)
    async with served(NANO, config, parts) as worker:
        answers = [
            (await worker.post(COMPLETIONS, body(start + end, max_tokens=24), f"req_{place}")).json()["usage"]
            for place, end in enumerate(("print(", "yield ", "if "))
        ]
        found = await figures(worker)
    cached = [one["prompt_tokens_details"]["cached_tokens"] for one in answers]
    assert cached[0] == 0
    assert min(cached[1:]) >= 4
    assert found["cached_tokens_total"] == sum(cached)
    assert found["prompt_tokens_total"] == sum(one["prompt_tokens"] for one in answers)
    assert found["generated_tokens_total"] == sum(one["completion_tokens"] for one in answers) == 72
    assert found["begun_total"] == 3
    assert 0 < found["accepted_tokens_total"] <= found["drafted_tokens_total"]
    # each step of one text brings a token, and one more for every draft that came true
    assert found["steps_total"] >= 72 - found["accepted_tokens_total"]


@pytest.mark.parametrize(("config", "layers", "each"), [(TINY_V3, 2, 2), (QWEN, 3, 3)])
async def test_a_text_alone_touches_its_own_experts_in_each_routed_layer(
    config: dict[str, Any], layers: int, each: int, tmp_path: Path, parts: Any
) -> None:
    """One in sixteen steps of decoding is looked at: three of 48, the first token being the prompt's."""
    random_checkpoint_write(path=tmp_path / "model", config=config)
    async with served(tmp_path / "model", CONFIG, parts) as worker:
        assert (await worker.post(COMPLETIONS, body("def f(", max_tokens=49))).status_code == 200
        found = await figures(worker)
    assert found["experts_layers_total"] == 3 * layers
    assert found["experts_touched_total"] == 3 * layers * each
    assert found["fixed_experts_layers_total"] == 0


async def test_a_wait_in_the_queue_is_counted_from_arrival_to_beginning(tiny_dir: Path, parts: Any) -> None:
    async with served(tiny_dir, CONFIG, parts) as worker:
        assert (await worker.post(COMPLETIONS, body("a", max_tokens=2), "req_1")).status_code == 200
        alone = await figures(worker)
        crowd = [worker.post(COMPLETIONS, body("b", max_tokens=64), f"req_{n}") for n in range(2, 6)]
        assert {one.status_code for one in await asyncio.gather(*crowd)} == {200}
        found = await figures(worker)
    assert (alone["begun_total"], found["begun_total"]) == (1, 5)
    waited_s = found["queue_wait_seconds_total"] - alone["queue_wait_seconds_total"]
    forward_s = found["forward_seconds_total"] - alone["forward_seconds_total"]
    # four in one place: the second waits for the first one's passes, the third for those of two …
    assert waited_s > forward_s / 4
    assert found["expired_total"] == 0
