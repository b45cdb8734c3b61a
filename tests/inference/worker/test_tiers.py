"""Fixed-routing profiles of a worker that was started with them: over HTTP, with the real engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch

from inference.engine import AsyncEngine
from inference.messages import Enrolment
from inference.models.decoder import Decoder
from inference.models.loader import load_model
from inference.routing.profile import RoutingProfile, routers_digest
from inference.worker.journal.journal import Journal
from inference.worker.options import options_parse
from inference.worker.signing import WorkerKey
from tests.inference.worker.conftest import worker_serving
from tests.inference.worker.test_serving import frames_of

COMPLETIONS = "/v1/completions"
BODY: dict[str, Any] = {
    "model": "tokenworks-test", "prompt": "def f(", "temperature": 0, "max_tokens": 24, "ignore_eos": True,
}  # fmt: skip
STREAM = {"stream": True, "stream_options": {"include_usage": True}}


def profile(model: Decoder, *, coverage_min: float) -> RoutingProfile:
    """Experts 0, 1, 2, 4, 5 and 6 of eight: every group of two has one at least."""
    layers = len(model.routers)
    return RoutingProfile(
        mode="pool",
        domain="test",
        checkpoint=routers_digest(weight for weight, _ in model.routers),
        layers=layers,
        experts=8,
        size=6,
        coverage_min=coverage_min,
        covered=1.0,
        tokens=1,
        experts_LM=torch.tensor([[0, 1, 2, 4, 5, 6]] * layers),
    )


@pytest.fixture
async def tiers(
    journal: Journal, key: WorkerKey, enrolment: Enrolment, tiny_dir: Path, tmp_path: Path
) -> AsyncIterator[tuple[Any, str, str]]:
    """A worker with the options of a command line, and its two profiles: one that any prompt fits, and one
    that none does.
    """
    model = load_model(tiny_dir)
    assert isinstance(model, Decoder)
    options, ids = [], []
    for name, coverage_min in (("any", 0.0), ("none", 1.0)):
        made = profile(model, coverage_min=coverage_min)
        made.save(tmp_path / f"{name}.profile")
        options += ["--routing-profile", str(tmp_path / f"{name}.profile")]
        ids.append(made.id)
    config = options_parse(
        [
            *("--name", "w", "--model-dir", str(tiny_dir), "--release", "tokenworks-test"),
            *("--control-url", "http://127.0.0.1:1", "--token-file", str(tmp_path / "token")),
            *("--state-dir", str(tmp_path / "state"), "--port", "0", "--threads", "1"),
            *("--page-size", "4", "--pages", "64", "--max-running", "4", *options),
        ]
    ).engine
    engine = AsyncEngine.load(tiny_dir, config)
    await engine.start()
    async with worker_serving(engine, journal, key, enrolment) as worker:
        yield worker, ids[0], ids[1]
    await engine.close()


async def ask(worker: Any, request_id: str, routing: str | None, **fields: Any) -> Any:
    headers = {"x-request-id": request_id} | ({} if routing is None else {"x-tokenworks-routing": routing})
    answer = await worker.client.post(COMPLETIONS, json=BODY | fields, headers=headers)
    assert answer.status_code == 200
    return answer


async def test_the_usage_of_an_answer_names_its_profile(tiers: tuple[Any, str, str]) -> None:
    worker, fits, _ = tiers
    plain = (await ask(worker, "req_1", None)).json()
    assert "routing" not in plain["usage"]
    fixed = (await ask(worker, "req_2", fits)).json()
    assert fixed["usage"]["routing"] == fits
    assert fixed["choices"][0]["text"] != plain["choices"][0]["text"]  # six experts of eight
    streamed = frames_of((await ask(worker, "req_3", fits, **STREAM)).text)
    assert [
        data["usage"]["routing"] for _, data in streamed if isinstance(data, dict) and data.get("usage")
    ] == [fits]
    metrics = (await worker.client.get("/metrics")).text
    assert "tokenworks_worker_engine_fixed_experts_touched_total" in metrics
    assert worker.engine.stats().fixed_experts_layers > 0


async def test_an_answer_that_fell_back_says_so_and_is_the_dynamic_one(tiers: tuple[Any, str, str]) -> None:
    worker, _, none = tiers
    plain = (await ask(worker, "req_1", None)).json()
    back = (await ask(worker, "req_2", none)).json()
    assert back["usage"]["routing"].startswith("dynamic; covered 0.")
    assert back["usage"]["routing"].endswith(" of 1.000")
    assert back["choices"][0]["text"] == plain["choices"][0]["text"]


async def test_a_profile_that_is_not_loaded_is_refused_beside_those_that_are(
    tiers: tuple[Any, str, str],
) -> None:
    worker, _, _ = tiers
    headers = {"x-request-id": "req_1", "x-tokenworks-routing": "rp_absent"}
    refused = await worker.client.post(COMPLETIONS, json=BODY, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "unknown_routing")
