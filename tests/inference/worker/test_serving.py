"""A request over a real socket: frames, usage, receipts, refusals."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import threading
from typing import Any

import pytest

from inference.engine import RequestRejected
from inference.messages import SignedEntry
from inference.worker.server import scopes
from inference.worker.signing import signature_is_valid

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
CHAT_BODY: dict[str, Any] = {"model": "tokenworks-test", "messages": [{"role": "user", "content": "hi"}]}
TEXT_BODY: dict[str, Any] = {"model": "tokenworks-test", "prompt": "abc"}
STREAM_BODY = CHAT_BODY | {"stream": True, "stream_options": {"include_usage": True}}


def frames_of(text: str) -> list[tuple[str, Any]]:
    """``(event, data)`` of every frame; data is parsed unless it is [DONE]."""
    found = []
    for frame in text.removesuffix("\n\n").split("\n\n"):
        if frame.startswith(":"):
            found.append(("comment", frame))
            continue
        lines = dict(line.split(": ", 1) for line in frame.split("\n"))
        data = lines["data"]
        found.append((lines.get("event", "message"), data if data == "[DONE]" else json.loads(data)))
    return found


def receipt_of(response: Any) -> SignedEntry:
    return SignedEntry.from_dict(json.loads(base64.b64decode(response.headers["x-tokenworks-receipt"])))


async def test_a_stream_has_role_text_finish_usage_receipt_done_in_this_order(worker: Any) -> None:
    response = await worker.post(CHAT, STREAM_BODY)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["x-request-id"] == "req_1"
    frames = frames_of(response.text)
    assert [event for event, _ in frames] == ["message"] * 5 + ["receipt", "message"]
    assert frames[-1] == ("message", "[DONE]")
    chunks = [data for _, data in frames[:5]]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:4]]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo"}, {}]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:4]] == [None, None, None, "stop"]
    assert [chunk["usage"] for chunk in chunks[:4]] == [None] * 4
    prompt = len("user:hi\n") + 1
    assert chunks[4]["choices"] == []
    assert chunks[4]["usage"]["prompt_tokens"] == prompt
    assert chunks[4]["usage"]["completion_tokens"] == 3
    assert chunks[4]["usage"]["prompt_cache_miss_tokens"] == prompt - 2
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-1"}
    assert len({chunk["created"] for chunk in chunks}) == 1


async def test_the_receipt_is_the_journal_entry_and_verifies(worker: Any) -> None:
    response = await worker.post(CHAT, STREAM_BODY)
    signed = SignedEntry.from_dict(
        next(data for event, data in frames_of(response.text) if event == "receipt")
    )
    assert worker.journal.find("req_1") == signed
    entry = signed.entry
    assert (entry.prompt_tokens, entry.cached_tokens, entry.completion_tokens) == (9, 2, 3)
    assert (entry.finish_reason, entry.model, entry.worker_id) == ("stop", "tokenworks-test", "wrk_1")
    assert entry.output_sha256 == hashlib.sha256(b"Hello").hexdigest()
    assert entry.first_token_at_ms is not None
    assert entry.received_at_ms <= entry.first_token_at_ms <= entry.finished_at_ms
    assert signature_is_valid(
        public_text=worker.key.public_text, message=entry.signing_bytes(), signature=signed.signature
    )


async def test_a_whole_answer_carries_its_receipt_in_a_header(worker: Any) -> None:
    response = await worker.post(CHAT, CHAT_BODY)
    body = response.json()
    assert body["choices"][0]["message"]["content"] == "Hello"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"]["total_tokens"] == 12
    assert receipt_of(response) == worker.journal.find("req_1")


async def test_a_completion_continues_its_prompt_and_stops_at_length(worker: Any) -> None:
    worker.engine.last_reason = "length"
    response = await worker.post(COMPLETIONS, TEXT_BODY)
    assert response.json()["choices"][0] == {
        "index": 0,
        "text": "Hello",
        "logprobs": None,
        "finish_reason": "length",
    }
    request = worker.engine.requests[0]
    assert request.prompt_token_ids == (256, *b"abc")
    assert request.params.max_tokens == 16


async def test_fill_in_the_middle_and_token_prompts_reach_the_engine(worker: Any) -> None:
    await worker.post(COMPLETIONS, TEXT_BODY | {"suffix": "xyz"}, "req_1")
    await worker.post(COMPLETIONS, TEXT_BODY | {"prompt": [5, 6]}, "req_2")
    prompts = [request.prompt_token_ids for request in worker.engine.requests]
    assert prompts == [(256, 257, *b"abc", 258, *b"xyz", 259), (5, 6)]
    refused = await worker.post(COMPLETIONS, TEXT_BODY | {"suffix": "unsupported"}, "req_3")
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "suffix")


async def test_sampling_parameters_reach_the_engine(worker: Any) -> None:
    changes = {"temperature": 0.5, "top_p": 0.25, "seed": 7, "stop": ["a"], "max_tokens": 9}
    await worker.post(CHAT, CHAT_BODY | changes, "req_1")
    await worker.post(CHAT, CHAT_BODY | {"top_p": 0}, "req_2")
    first, second = (request.params for request in worker.engine.requests)
    assert (first.temperature, first.top_p, first.seed, first.stop, first.max_tokens) == (
        0.5,
        0.25,
        7,
        ("a",),
        9,
    )
    assert (second.temperature, second.top_p) == (0, 1)
    assert second.max_tokens == 4096 - 9


async def test_a_large_prompt_is_tokenized_beside_the_loop(worker: Any) -> None:
    response = await worker.post(COMPLETIONS, TEXT_BODY | {"prompt": "x" * 50_000})
    assert response.json()["usage"]["prompt_tokens"] == 50_001


async def test_tools_and_long_calls_are_written_out_beside_the_loop(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_chat, threads = worker.engine.tokenizer.encode_chat, []

    def watched(*arguments: Any, **options: Any) -> list[int]:
        threads.append(threading.current_thread())
        return list(encode_chat(*arguments, **options))[:10]

    monkeypatch.setattr(worker.engine.tokenizer, "encode_chat", watched)
    tools = [{"type": "function", "function": {"name": "f", "description": "x"}}]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": json.dumps("y" * 50_000)}}
    asked = [{"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": [call]}]
    answered = [*asked, {"role": "tool", "tool_call_id": "c", "content": "z"}]
    bodies: list[dict[str, Any]] = [{"tools": tools}, {"messages": answered}, {}]
    for number, more in enumerate(bodies):
        response = await worker.post(CHAT, CHAT_BODY | more, f"req_{number}")
        assert response.status_code == 200, response.text
    here = threading.current_thread()
    assert [thread is here for thread in threads] == [False, False, True]


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "dispatch-token", "Bearer dispatch-tokén"])
async def test_only_the_dispatch_token_opens(worker: Any, authorization: str) -> None:
    headers = {"authorization": authorization.encode("latin-1"), "x-request-id": "req_1"}
    for method, path in (("POST", CHAT), ("GET", "/journal"), ("GET", "/journal/req_1"), ("POST", "/drain")):
        response = await worker.client.request(method, path, headers=headers, content=b"{}")
        assert response.status_code == 401, path
        assert response.json()["error"]["code"] == "invalid_dispatch_token"
    assert worker.engine.requests == []
    assert not worker.runtime.draining


@pytest.mark.parametrize("request_id", [None, "", "req_", "ten_1", "req_A", "req_1/../x"])
async def test_a_request_needs_a_well_formed_id(worker: Any, request_id: str | None) -> None:
    headers = {} if request_id is None else {"x-request-id": request_id}
    response = await worker.client.post(CHAT, json=CHAT_BODY, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_request_id")


async def test_a_malformed_body_never_reaches_the_engine(worker: Any) -> None:
    response = await worker.client.post(CHAT, content=b"{", headers={"x-request-id": "req_1"})
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    refused = await worker.post(CHAT, CHAT_BODY | {"n": 300})
    assert refused.json()["error"]["param"] == "n"
    assistant_last = CHAT_BODY | {"messages": [{"role": "assistant", "content": "x"}]}
    refused = await worker.post(CHAT, assistant_last)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "messages")
    assert worker.engine.requests == []
    assert worker.journal.next_seq == 0


async def test_another_model_is_not_found(worker: Any) -> None:
    response = await worker.post(CHAT, CHAT_BODY | {"model": "other"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_request_id_is_served_once(worker: Any) -> None:
    assert (await worker.post(CHAT, CHAT_BODY)).status_code == 200
    again = await worker.post(CHAT, CHAT_BODY)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "duplicate_request")
    assert again.headers["x-should-retry"] == "false"
    assert worker.journal.next_seq == 1


async def test_a_request_id_in_flight_is_a_duplicate_and_has_no_entry_yet(worker: Any) -> None:
    worker.engine.gate = asyncio.Event()
    first = asyncio.create_task(worker.post(CHAT, CHAT_BODY))
    await worker.busy()
    assert (await worker.post(CHAT, CHAT_BODY)).status_code == 409
    pending = await worker.client.get("/journal/req_1")
    assert (pending.status_code, pending.json()["error"]["code"]) == (503, "in_flight")
    worker.engine.gate.set()
    assert (await first).status_code == 200
    assert (await worker.client.get("/journal/req_1")).status_code == 200


async def test_a_large_body_is_refused_with_and_without_its_length(worker: Any) -> None:
    large = b" " * (4 * 1024 * 1024 + 1)

    async def pieces() -> Any:
        for start in range(0, len(large), 1 << 20):
            yield large[start : start + (1 << 20)]

    for content in (large, pieces()):
        response = await worker.client.post(CHAT, content=content, headers={"x-request-id": "req_1"})
        assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("code", "status", "wire_code"),
    [
        ("queue_full", 503, "server_is_overloaded"),
        ("engine_closed", 503, "server_is_overloaded"),
        ("context_length_exceeded", 400, "context_length_exceeded"),
        ("empty_prompt", 400, "empty_prompt"),
        ("invalid_token", 400, "invalid_token"),
        ("duplicate_request", 409, "duplicate_request"),
    ],
)
async def test_what_the_engine_rejects(worker: Any, code: str, status: int, wire_code: str) -> None:
    worker.engine.rejection = RequestRejected(code, "the reason")
    response = await worker.post(CHAT, STREAM_BODY)
    assert (response.status_code, response.json()["error"]["code"]) == (status, wire_code)
    assert ("retry-after-ms" in response.headers) == (status == 503)
    assert worker.journal.next_seq == 0
    assert worker.runtime.in_flight == {}


async def test_a_rejected_request_may_be_sent_again(worker: Any) -> None:
    worker.engine.rejection = RequestRejected("queue_full", "full")
    assert (await worker.post(CHAT, CHAT_BODY)).status_code == 503
    worker.engine.rejection = None
    assert (await worker.post(CHAT, CHAT_BODY)).status_code == 200


async def test_a_stopped_engine_ends_the_process_and_readiness(worker: Any) -> None:
    worker.engine.rejection = RequestRejected("engine_closed", "the engine is not running")
    await worker.post(CHAT, CHAT_BODY)
    assert worker.runtime.failed.is_set()
    assert (await worker.client.get("/readyz")).status_code == 503


async def test_a_failure_in_mid_stream_is_an_error_frame_with_receipt_and_done(worker: Any) -> None:
    worker.engine.failure = RuntimeError("secret details")
    response = await worker.post(CHAT, STREAM_BODY)
    assert response.status_code == 200
    frames = frames_of(response.text)
    assert frames[-3][1]["error"]["type"] == "server_error"
    assert set(frames[-3][1]["error"]) == {"message", "type", "param", "code"}
    assert frames[-2][0] == "receipt"
    assert frames[-1][1] == "[DONE]"
    assert "secret" not in response.text
    entry = worker.journal.find("req_1").entry
    assert (entry.finish_reason, entry.completion_tokens) == ("error", 0)  # our failure, at our cost


async def test_a_failure_before_the_first_token_is_a_plain_error(worker: Any) -> None:
    worker.engine.texts = ["x"]
    worker.engine.failure = RuntimeError("no")
    for number, body in enumerate((STREAM_BODY, CHAT_BODY)):
        response = await worker.post(CHAT, body, f"req_{number}")
        assert response.status_code == 500
        assert receipt_of(response).entry.finish_reason == "error"
        assert receipt_of(response).entry.prompt_tokens == 0


async def test_an_engine_that_reports_an_error_is_no_success(worker: Any) -> None:
    worker.engine.last_reason = "error"
    response = await worker.post(CHAT, CHAT_BODY)
    assert response.status_code == 500
    assert receipt_of(response).entry.finish_reason == "error"


async def test_a_broken_journal_withholds_the_receipt_and_new_work(worker: Any) -> None:
    worker.engine.gate = asyncio.Event()
    waiting = asyncio.create_task(worker.post(CHAT, CHAT_BODY))
    await worker.busy()
    worker.journal.broken = "the journal cannot be written: disk full"
    worker.engine.gate.set()
    response = await waiting
    assert response.status_code == 500
    assert "x-tokenworks-receipt" not in response.headers
    assert (await worker.post(CHAT, CHAT_BODY, "req_2")).status_code == 503
    assert (await worker.client.get("/readyz")).status_code == 503
    assert worker.runtime.state == "draining"


async def test_a_queued_stream_is_kept_alive(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scopes, "KEEP_ALIVE_S", 0.01)
    worker.engine.gate = asyncio.Event()
    headers = {"x-request-id": "req_1"}
    async with worker.client.stream("POST", CHAT, json=STREAM_BODY, headers=headers) as response:
        pieces = response.aiter_text()
        assert await anext(pieces) == ": keep-alive\n\n"
        worker.engine.gate.set()
        rest = frames_of("".join([piece async for piece in pieces]))
    spoken = [data for event, data in rest if event != "comment"]
    assert spoken[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert spoken[-1] == "[DONE]"


async def test_the_journal_can_be_paged(worker: Any) -> None:
    for number in range(5):
        await worker.post(CHAT, CHAT_BODY, f"req_{number}")
    page = (await worker.client.get("/journal?after_seq=1&limit=2")).json()
    assert [signed["entry"]["request_id"] for signed in page] == ["req_2", "req_3"]
    assert len((await worker.client.get("/journal")).json()) == 5
    missing = await worker.client.get("/journal/req_9")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    for query in ("limit=0", "limit=1001", "limit=x", "after_seq=-2", "after_seq=" + "9" * 30):
        assert (await worker.client.get(f"/journal?{query}")).status_code == 400


async def test_health_readiness_metrics_and_unknown_paths(worker: Any) -> None:
    await worker.post(CHAT, STREAM_BODY)
    for path in ("/healthz", "/readyz", "/metrics"):
        assert (await worker.client.get(path, headers={"authorization": ""})).status_code == 200
    metrics = (await worker.client.get("/metrics")).text
    for line in (
        'tokenworks_worker_requests_total{endpoint="chat",finish_reason="stop"} 1.0',
        'tokenworks_worker_tokens_total{kind="prompt"} 9.0',
        'tokenworks_worker_tokens_total{kind="completion"} 3.0',
        "tokenworks_worker_first_token_seconds_count 1.0",
        "tokenworks_worker_inter_token_seconds_count 2.0",
        "tokenworks_worker_cache_pages_free 5.0",
    ):
        assert line in metrics
    for method, path in (("GET", "/v1/models"), ("DELETE", "/journal"), ("GET", CHAT)):
        response = await worker.client.request(method, path)
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
