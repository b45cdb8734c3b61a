"""Workers that refuse, die, lie; clients that leave. Each request ends once, and is paid as produced."""

from __future__ import annotations

import json
import socket

import openai
import pytest

from core import redis_keys
from tests.gateway.world import World, error_of, frames_of
from transparency.receipts import verify


@pytest.mark.parametrize("mode", ["refuse", "drop"])
@pytest.mark.parametrize("stream", [False, True])
def test_failing_first_choice_is_passed_over(world: World, mode: str, stream: bool) -> None:
    world.modes(mode, "ok", "ok")
    response = world.post(world.request(stream=stream))
    assert response.status_code == 200
    assert response.headers["x-tokenworks-partner"] == "tencent"
    assert response.headers["x-tokenworks-reason"].startswith("failed over 1x")
    event = world.event(response.headers["x-request-id"])
    assert event.partner_id == "par_tencent"
    assert event.price.input_nano_per_mtok == 120_000_000
    assert [one["worker_id"] for one in event.decision["failovers"]] == [world.workers[0].worker_id]
    assert verify(event.receipt) == []


def test_nobody_left_is_503_and_free(world: World) -> None:
    world.modes("refuse", "refuse", "drop")
    tenant_id, key, _ = world.tenant_make(10**9)
    response = world.post(world.request(), key=key)
    assert response.status_code == 503
    assert error_of(response)["code"] == "server_is_overloaded"
    assert response.headers["retry-after-ms"] == "700"
    world.modes("ok", "ok", "ok")
    assert world.events(tenant_id) == []


def test_dead_worker_is_left_out_for_a_while(world: World) -> None:
    stub = world.workers[0]
    world.loop.run(stub.stop())
    try:
        first, second = world.post(world.request()), world.post(world.request())
        assert [one.headers["x-tokenworks-partner"] for one in (first, second)] == ["tencent", "tencent"]
        assert "failed over" in first.headers["x-tokenworks-reason"]
        assert "failed over" not in second.headers["x-tokenworks-reason"]
        codes = {one["code"] for one in world.event(second.headers["x-request-id"]).decision["excluded"]}
        assert codes == {"unreachable"}
    finally:
        world.loop.run(stub.start())
        world.wait(lambda: world.post(world.request()).headers["x-tokenworks-partner"] == "huawei")


def test_fallbacks_can_be_refused(world: World) -> None:
    world.modes("refuse", "ok", "ok")
    response = world.post(world.request(provider={"order": ["huawei"], "allow_fallbacks": False}))
    assert response.status_code == 503


@pytest.mark.parametrize(("mode", "status"), [("reject", 400), ("fail", 500)])
@pytest.mark.parametrize("stream", [False, True])
def test_workers_refusal_is_passed_on_and_free(world: World, mode: str, status: int, stream: bool) -> None:
    world.modes(mode, "ok", "ok")
    tenant_id, key, _ = world.tenant_make(10**9)
    response = world.post(world.request(stream=stream), key=key)
    assert response.status_code == status
    error_of(response)
    assert world.events(tenant_id) == []
    if mode == "reject":
        world.wait(lambda: world.account(tenant_id)["held"] == 0)


def test_loss_in_mid_stream_is_a_clear_error(world: World) -> None:
    world.modes("cut", "ok", "ok")
    client = openai.OpenAI(api_key=world.key.plain, base_url=f"{world.url}/v1", max_retries=0)
    stream = client.chat.completions.create(
        model="nano", messages=[{"role": "user", "content": "say 9"}], stream=True
    )
    seen = [next(stream).choices[0].delta.content, next(stream).choices[0].delta.content]
    with pytest.raises(openai.APIError) as caught:
        next(stream)
    assert seen == ["t0 ", "t1 "]
    assert caught.value.code == "insufficient_system_resource"
    assert "half" not in str(caught.value)


def test_loss_after_the_receipt_is_no_loss(world: World) -> None:
    world.modes("lastcut", "ok", "ok")
    response = world.post(world.request(stream=True))
    assert len(frames_of(response.text)) == 3
    assert world.event(response.headers["x-request-id"]).completion_tokens == 3


@pytest.mark.parametrize("stream", [False, True])
def test_missing_receipt_is_read_from_the_journal(world: World, stream: bool) -> None:
    world.modes("dumb", "ok", "ok")
    response = world.post(world.request(stream=stream))
    assert response.status_code == 200
    event = world.event(response.headers["x-request-id"])
    assert event.completion_tokens == 3
    assert verify(event.receipt) == []


def test_client_that_leaves_pays_for_what_was_produced(world: World) -> None:
    tenant_id, key, record = world.tenant_make(10**9)
    stub = world.workers[0]
    with world.http.stream(
        "POST",
        f"{world.url}/v1/chat/completions",
        json=world.request(stream=True, say="slow 900", max_tokens=1000),
        headers={"authorization": f"Bearer {key}"},
    ) as response:
        request_id = response.headers["x-request-id"]
        for line in response.iter_lines():
            if "t3 " in line:
                break
    world.wait(lambda: stub.running == 0, "the worker to stop")
    event = world.event(request_id)
    assert event.finish_reason == "cancelled"
    assert 4 <= event.completion_tokens < 900
    assert event.completion_tokens == stub.entries[request_id].entry.completion_tokens
    assert verify(event.receipt) == []
    world.wait(lambda: world.account(tenant_id)["held"] == 0)
    assert world.account(tenant_id)["pending"] == event.charge.charge_nano
    assert world.redis.hget(redis_keys.bucket(record.key_id), "inflight") == b"0"


def test_client_that_leaves_a_whole_answer_cancels_it(world: World) -> None:
    body = json.dumps(world.request(say="slow 40")).encode()
    host, port = "127.0.0.1", world.port
    tenant_id, key, _ = world.tenant_make(10**9)
    with socket.create_connection((host, port)) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        connection.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
        world.wait(lambda: world.workers[0].running == 1, "the worker to begin")
    world.wait(lambda: world.account(tenant_id).get("held") == 0, "the hold to end")


@pytest.mark.parametrize(
    ("mode", "problem"),
    [
        ("forged", "worker_signature_invalid"),
        ("greedy", "completion_tokens_implausible"),
        ("liar", "usage_mismatch"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_does_not_add_up_is_disputed_and_bounded(
    world: World, mode: str, problem: str, stream: bool
) -> None:
    world.modes(mode, "ok", "ok")
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    response = world.post(world.request(**options))
    event = world.event(response.headers["x-request-id"])
    assert problem in event.receipt["gateway"]["problems"]
    assert problem in verify(event.receipt)
    assert event.completion_tokens == (50 if mode == "greedy" else 3)
