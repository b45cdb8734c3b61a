"""How long a request may wait for its beginning: over HTTP, with the real engine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from inference.engine import AsyncEngine, EngineConfig
from inference.messages import Enrolment
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write
from inference.worker.journal.journal import Journal
from inference.worker.signing import WorkerKey
from tests.inference.worker.conftest import worker_serving

COMPLETIONS = "/v1/completions"
BODY: dict[str, Any] = {"model": "tokenworks-test", "prompt": "def f(", "temperature": 0, "max_tokens": 4}
LONG = BODY | {"max_tokens": 12_000, "ignore_eos": True, "stream": True}


@pytest.fixture(scope="module")
def patient_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that takes texts long enough to hold a place while others wait."""
    path = tmp_path_factory.mktemp("patient")
    random_checkpoint_write(path=path, config={**TINY_V3, "max_position_embeddings": 16_384})
    return path


@pytest.fixture
async def narrow(
    journal: Journal, key: WorkerKey, enrolment: Enrolment, patient_dir: Path
) -> AsyncIterator[Any]:
    """A worker with one place for running requests."""
    engine = AsyncEngine.load(patient_dir, EngineConfig(page_size=16, pages=1024, max_running=1))
    await engine.start()
    async with worker_serving(engine, journal, key, enrolment) as serving:
        yield serving
    await engine.close()


async def post(worker: Any, request_id: str, deadline_ms: str, **fields: Any) -> Any:
    headers = {"x-request-id": request_id, "x-tokenworks-deadline-ms": deadline_ms}
    return await worker.client.post(COMPLETIONS, json=BODY | fields, headers=headers)


@pytest.mark.parametrize("fields", [{}, {"stream": True}, {"n": 2}])
async def test_a_request_that_does_not_begin_in_time_is_answered_503_and_not_charged(
    narrow: Any, fields: dict[str, Any]
) -> None:
    headers = {"x-request-id": "req_long"}
    async with narrow.client.stream("POST", COMPLETIONS, json=LONG, headers=headers) as running:
        chunks = running.aiter_bytes()  # kept, or the response would be closed
        await anext(chunks)  # the only place is taken
        late = await post(narrow, "req_late", "1", **fields)
        assert "req_long" in narrow.runtime.in_flight
    assert (late.status_code, late.json()["error"]["code"]) == (503, "server_is_overloaded")
    assert "waited too long" in late.json()["error"]["message"]
    assert int(late.headers["retry-after-ms"]) > 0
    assert "x-tokenworks-receipt" in late.headers
    entry = narrow.journal.find("req_late").entry
    assert (entry.finish_reason, entry.prompt_tokens, entry.completion_tokens) == ("cancelled", 0, 0)
    assert narrow.engine.stats().expired == fields.get("n", 1)


async def test_a_request_that_has_begun_is_not_ended_by_its_deadline(narrow: Any) -> None:
    answer = await post(narrow, "req_1", "3600000")
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["finish_reason"] in ("stop", "length")
    assert narrow.engine.stats().expired == 0


@pytest.mark.parametrize("text", ["0", "3600001", "-5", "1.5", "soon", "", "99999999999", "１"])
async def test_a_deadline_beyond_the_limits_is_refused_by_its_name(worker: Any, text: str) -> None:
    headers = {"x-request-id": "req_1", "x-tokenworks-deadline-ms": text.encode()}
    refused = await worker.client.post(COMPLETIONS, json=BODY, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_header")
    assert "x-tokenworks-deadline-ms" in refused.json()["error"]["message"]
    assert worker.engine.requests == []


async def test_the_limits_themselves_are_taken_in_seconds(worker: Any) -> None:
    for number, (text, seconds) in enumerate((("1", 0.001), ("3600000", 3600.0))):
        assert (await post(worker, f"req_{number}", text)).status_code == 200
        assert worker.engine.requests[-1].deadline_s == seconds
    assert (await worker.post(COMPLETIONS, BODY, "req_9")).status_code == 200
    assert worker.engine.requests[-1].deadline_s is None
