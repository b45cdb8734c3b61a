"""How a request that ends without its answer is told, and that nobody pays for what failed."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from inference.engine import EngineConfig, FinishReason
from inference.engine.remote import RemoteEngine
from inference.messages import Enrolment, JournalEntry
from inference.worker.journal.journal import Journal
from inference.worker.signing import WorkerKey
from tests.inference.worker.conftest import until, worker_serving
from tests.inference.worker.test_serving import CHAT, CHAT_BODY, STREAM_BODY, frames_of

FORMAT = {"response_format": {"type": "regex", "pattern": "[a-z]+"}}


def end_with(
    worker: Any, monkeypatch: pytest.MonkeyPatch, reason: FinishReason, problem: str = "why"
) -> None:
    """Let the scripted engine's last event bring no token and this reason."""
    usual = worker.engine._event

    def event(request: Any, index: int, text: str, last: bool) -> Any:
        made = usual(request, index, text, last)
        if not last:
            return made
        return replace(
            made, text="", token_ids=(), finish_reason=reason, problem=problem, completion_tokens=index
        )

    monkeypatch.setattr(worker.engine, "_event", event)


def counts(entry: JournalEntry) -> tuple[str, int, int, int]:
    return entry.finish_reason, entry.prompt_tokens, entry.cached_tokens, entry.completion_tokens


@pytest.mark.parametrize("body", [CHAT_BODY, STREAM_BODY])
async def test_what_an_engine_lost_before_it_began_may_go_to_another_worker(
    worker: Any, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.engine.texts = [""]
    end_with(worker, monkeypatch, "lost")
    response = await worker.post(CHAT, body)
    assert (response.status_code, response.json()["error"]["code"]) == (503, "server_is_overloaded")
    assert int(response.headers["retry-after"]) > 0
    assert counts(worker.journal.find("req_1").entry) == ("error", 0, 0, 0)


@pytest.mark.parametrize("reason", ["lost", "error"])
async def test_a_failure_of_the_worker_is_not_charged(
    worker: Any, reason: FinishReason, monkeypatch: pytest.MonkeyPatch
) -> None:
    end_with(worker, monkeypatch, reason)
    assert (await worker.post(CHAT, CHAT_BODY, "req_1")).status_code == 500
    assert "error" in frames_of((await worker.post(CHAT, STREAM_BODY, "req_2")).text)[-3][1]
    for request_id in ("req_1", "req_2"):
        assert counts(worker.journal.find(request_id).entry) == ("error", 0, 0, 0)


async def test_a_text_stuck_in_its_grammar_is_the_callers_error(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trying again would not help. Only what was shown is charged."""
    end_with(worker, monkeypatch, "stuck", "no token may follow")
    whole = await worker.post(CHAT, CHAT_BODY | FORMAT, "req_1")
    error = whole.json()["error"]
    assert (whole.status_code, error["code"], error["param"]) == (422, "grammar_stuck", "response_format")
    assert "no token may follow" in error["message"]
    assert counts(worker.journal.find("req_1").entry) == ("error", 0, 0, 0)
    streamed = frames_of((await worker.post(CHAT, STREAM_BODY | FORMAT, "req_2")).text)
    assert streamed[-3][1]["error"] == error
    assert counts(worker.journal.find("req_2").entry) == ("error", 9, 2, 2)


async def test_what_was_dropped_meanwhile_is_not_found(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    worker.engine.texts = [""]
    end_with(worker, monkeypatch, "refused", "no adapter law is loaded")
    response = await worker.post(CHAT, CHAT_BODY)
    assert response.status_code == 404
    assert response.json()["error"]["message"] == "No adapter law is loaded."
    assert counts(worker.journal.find("req_1").entry) == ("error", 0, 0, 0)


async def test_a_request_that_waits_when_the_engines_process_dies(
    journal: Journal, key: WorkerKey, enrolment: Enrolment, tiny_dir: Path
) -> None:
    engine = await RemoteEngine.launch(tiny_dir, EngineConfig(page_size=4, pages=64, max_running=4))
    try:
        async with worker_serving(engine, journal, key, enrolment) as worker:
            os.kill(engine.pid, signal.SIGSTOP)
            waiting = [asyncio.create_task(worker.post(CHAT, CHAT_BODY, f"req_{i}")) for i in range(3)]
            await until(lambda: len(worker.runtime.in_flight) == 3)
            os.kill(engine.pid, signal.SIGKILL)
            for number, response in enumerate(await asyncio.gather(*waiting)):
                assert response.status_code == 503
                assert int(response.headers["retry-after-ms"]) > 0
                signed = journal.find(f"req_{number}")
                assert signed is not None
                assert counts(signed.entry) == ("error", 0, 0, 0)
    finally:
        await engine.close()
