"""Who leaves, leaves the engine too; what was produced is in the journal. Drains let the rest finish."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest

from inference.engine import FinishReason, TokenEvent
from inference.worker.lifecycle import runtime_drain
from inference.worker.server import scopes

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "tokenworks-test", "messages": [{"role": "user", "content": "hi"}]}
HEADERS = {"x-request-id": "req_1"}


async def entry_of(worker: Any, request_id: str = "req_1") -> dict[str, Any]:
    await worker.idle()
    response = await worker.client.get(f"/journal/{request_id}")
    entry: dict[str, Any] = response.json()["entry"]
    return entry


async def test_a_client_that_leaves_a_stream_pays_for_what_was_produced(worker: Any) -> None:
    worker.engine.texts = ["a", "b", "c", "d"]
    worker.engine.gate, worker.engine.free = asyncio.Event(), 2
    async with worker.client.stream("POST", CHAT, json=BODY | {"stream": True}, headers=HEADERS) as response:
        text = ""
        async for piece in response.aiter_text():
            text += piece
            if '"content":"b"' in text:
                break
    entry = await entry_of(worker)
    assert worker.engine.cancelled == ["req_1"]
    assert worker.engine.running == 0
    assert (entry["finish_reason"], entry["completion_tokens"], entry["prompt_tokens"]) == ("cancelled", 2, 9)
    assert entry["output_sha256"] == hashlib.sha256(b"ab").hexdigest()


async def test_a_client_that_leaves_while_waiting_for_a_whole_answer(worker: Any) -> None:
    worker.engine.gate, worker.engine.free = asyncio.Event(), 1
    waiting = asyncio.create_task(worker.post(CHAT, BODY))
    await worker.busy()
    await asyncio.sleep(0.02)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    entry = await entry_of(worker)
    assert (entry["finish_reason"], entry["completion_tokens"]) == ("cancelled", 1)


async def test_a_client_that_leaves_the_queue_pays_nothing(worker: Any) -> None:
    worker.engine.gate = asyncio.Event()
    waiting = asyncio.create_task(worker.post(CHAT, BODY | {"stream": True}))
    await worker.busy()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    entry = await entry_of(worker)
    assert worker.engine.cancelled == ["req_1"]
    assert entry["finish_reason"] == "cancelled"
    assert (entry["prompt_tokens"], entry["completion_tokens"], entry["first_token_at_ms"]) == (0, 0, None)


@pytest.mark.parametrize("reason", ["error", "expired", "cancelled", "lost", "refused", "stuck"])
async def test_who_is_put_out_of_the_queue_pays_nothing(
    worker: Any, reason: FinishReason, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the engine ends: its last word on a request that never began has the prompt's length."""
    last = TokenEvent("req_1", "", (), reason, prompt_tokens=9, cached_tokens=0, completion_tokens=0)
    worker.engine.texts = [""]
    monkeypatch.setattr(worker.engine, "_event", lambda *_: last)
    assert (await worker.post(CHAT, BODY)).status_code >= 400
    entry = await entry_of(worker)
    assert (entry["prompt_tokens"], entry["cached_tokens"], entry["completion_tokens"]) == (0, 0, 0)


async def test_a_client_that_leaves_before_its_body_is_complete_leaves_no_trace(worker: Any) -> None:
    host, port = worker.client.base_url.host, worker.client.base_url.port
    _, writer = await asyncio.open_connection(host, port)
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\nx-request-id: req_1\r\n"
    writer.write(f"{head}authorization: Bearer dispatch-token\r\n\r\n{{".encode())
    await writer.drain()
    await asyncio.sleep(0.02)
    writer.close()
    await writer.wait_closed()
    assert (await worker.post(CHAT, BODY)).status_code == 200
    assert worker.journal.next_seq == 1


async def test_a_client_that_takes_nothing_is_cut_off(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scopes, "STALL_S", 0.2)
    worker.engine.texts = ["x" * 100_000] * 200  # more than any socket holds
    host, port = worker.client.base_url.host, worker.client.base_url.port
    body = json.dumps(BODY | {"stream": True}).encode()
    _, writer = await asyncio.open_connection(host, port, limit=1024)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\nx-request-id: req_1\r\n"
    writer.write(f"{head}authorization: Bearer dispatch-token\r\n\r\n".encode() + body)
    await worker.asked()  # the scripted engine is through before anybody looks whether it works
    try:
        entry = await entry_of(worker)
        assert entry["finish_reason"] == "cancelled"
        assert 0 < entry["completion_tokens"] < 200
    finally:
        writer.transport.abort()


async def test_every_request_of_a_crowd_has_exactly_one_entry(worker: Any) -> None:
    async def one(number: int) -> None:
        leaves = number % 3 == 0
        headers = {"x-request-id": f"req_{number}"}
        body = BODY | {"stream": number % 2 == 0}
        async with worker.client.stream("POST", CHAT, json=body, headers=headers) as response:
            if not leaves:
                await response.aread()

    async with asyncio.TaskGroup() as group:
        for number in range(60):
            group.create_task(one(number))
    await worker.idle()
    page = (await worker.client.get("/journal?limit=1000")).json()
    assert sorted(signed["entry"]["request_id"] for signed in page) == sorted(f"req_{n}" for n in range(60))
    assert [signed["entry"]["seq"] for signed in page] == list(range(60))


async def test_a_drain_lets_running_requests_finish_and_takes_no_new_ones(worker: Any) -> None:
    worker.engine.gate = asyncio.Event()
    running = asyncio.create_task(worker.post(CHAT, BODY))
    await worker.busy()
    answer = await worker.client.post("/drain")
    assert (answer.status_code, answer.json()) == (202, {"state": "draining", "in_flight": 1})
    refused = await worker.post(CHAT, BODY, "req_2")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_is_overloaded")
    assert int(refused.headers["retry-after-ms"]) > 0
    assert (await worker.client.get("/readyz")).status_code == 503
    assert (await worker.client.get("/healthz")).status_code == 200
    assert worker.runtime.state == "draining"
    drained = asyncio.create_task(runtime_drain(worker.runtime))
    worker.engine.gate.set()
    assert (await running).status_code == 200
    await drained
    assert (await entry_of(worker))["finish_reason"] == "stop"


async def test_a_drain_ends_what_does_not_finish_in_time_with_an_error_and_an_entry(worker: Any) -> None:
    worker.engine.gate, worker.engine.free = asyncio.Event(), 1
    async with worker.client.stream("POST", CHAT, json=BODY | {"stream": True}, headers=HEADERS) as response:
        pieces = response.aiter_text()
        text = await anext(pieces)
        await runtime_drain(worker.runtime, limit_s=0.05)
        text += "".join([piece async for piece in pieces])
    frames = text.removesuffix("\n\n").split("\n\n")
    assert frames[-1] == "data: [DONE]"
    assert frames[-2].startswith("event: receipt\n")
    error = json.loads(frames[-3].removeprefix("data: "))["error"]
    assert error["code"] == "insufficient_system_resource"
    assert (await entry_of(worker))["finish_reason"] == "cancelled"


@pytest.mark.parametrize(("produced", "status"), [(0, 503), (1, 500)])
async def test_only_a_request_that_produced_nothing_may_go_to_another_worker(
    worker: Any, produced: int, status: int
) -> None:
    worker.engine.gate, worker.engine.free = asyncio.Event(), produced
    waiting = asyncio.create_task(worker.post(CHAT, BODY))
    await worker.busy()
    await runtime_drain(worker.runtime, limit_s=0.05)
    assert (await waiting).status_code == status
    entry = await entry_of(worker)
    assert (entry["finish_reason"], entry["completion_tokens"]) == ("cancelled", 0)  # nobody was shown it
