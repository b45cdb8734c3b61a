"""The straight path: answers as the SDKs expect them, and the charge that follows."""

from __future__ import annotations

import threading

import msgspec
import openai
import pytest

from billing.rating import charge_for
from core import redis_keys
from routing.decide import decision_replay
from routing.records import Decision
from tests.gateway.world import World, error_of, frames_of
from transparency.receipts import verify


def test_sdk_streams_and_is_charged_to_the_token(world: World) -> None:
    client = openai.OpenAI(api_key=world.key.plain, base_url=f"{world.url}/v1", max_retries=0)
    stream = client.chat.completions.create(
        model="nano",
        messages=[{"role": "user", "content": "say 7"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "t0 t1 t2 t3 t4 t5 t6 "
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.completion_tokens == 7
    request_id = f"req_{chunks[0].id.removeprefix('chatcmpl-')}"
    event = world.event(request_id)
    assert (event.prompt_tokens, event.completion_tokens) == (5, 7)
    price = world.snapshot().workers[0].price
    assert event.charge == charge_for(price=price, prompt_tokens=5, cached_tokens=0, completion_tokens=7)
    assert event.price == price
    assert event.witness == "both"
    assert verify(event.receipt) == []


def test_sdk_gets_whole_answers_of_both_endpoints(world: World) -> None:
    client = openai.OpenAI(api_key=world.key.plain, base_url=f"{world.url}/v1", max_retries=0)
    chat = client.chat.completions.create(model="nano", messages=[{"role": "user", "content": "say 4"}])
    assert chat.choices[0].message.content == "t0 t1 t2 t3 "
    text = client.completions.create(model="nano", prompt="def f(", suffix=")", max_tokens=9)
    assert text.choices[0].text == "t0 t1 t2 "
    event = world.event(f"req_{text.id.removeprefix('cmpl-')}")
    assert event.endpoint == "completions"
    assert verify(event.receipt) == []
    assert event.receipt["gateway"]["output_sha256"] == event.receipt["entry"]["output_sha256"]
    assert [model.id for model in client.models.list()] == ["nano"]
    assert client.models.retrieve("nano").id == "nano"


def test_choices_are_held_and_charged_together(world: World) -> None:
    client = openai.OpenAI(api_key=world.key.plain, base_url=f"{world.url}/v1", max_retries=0)
    answer = client.chat.completions.create(
        model="nano", messages=[{"role": "user", "content": "say 4"}], n=3, max_tokens=4
    )
    assert [choice.message.content for choice in answer.choices] == ["t0 t1 t2 t3 "] * 3
    event = world.event(f"req_{answer.id.removeprefix('chatcmpl-')}")
    assert (event.prompt_tokens, event.completion_tokens) == (5, 12)
    assert verify(event.receipt) == []


def test_embeddings_are_charged_by_their_prompt(world: World) -> None:
    client = openai.OpenAI(api_key=world.key.plain, base_url=f"{world.url}/v1", max_retries=0)
    answer = client.embeddings.create(model="nano", input=["a", "b"], encoding_format="float")
    assert [one.embedding for one in answer.data] == [[0.6, 0.8]] * 2
    request_id = next(reversed(world.workers[0].entries))
    event = world.event(request_id)
    assert (event.endpoint, event.prompt_tokens, event.completion_tokens) == ("embeddings", 5, 0)
    assert verify(event.receipt) == []


def test_beta_completions_is_the_same_endpoint(world: World) -> None:
    response = world.post({"model": "nano", "prompt": "say 2", "max_tokens": 5}, path="/beta/completions")
    assert response.json()["choices"][0]["text"] == "t0 t1 "


def test_headers_say_who_why_and_what_is_left(world: World) -> None:
    _, key, record = world.tenant_make(10**9, requests_per_minute=60, tokens_per_minute=100_000)
    response = world.post(world.request(), key=key)
    headers = response.headers
    assert headers["x-request-id"].startswith("req_")
    assert headers["x-tokenworks-partner"] == "huawei"
    assert headers["x-tokenworks-worker"] == world.workers[0].worker_id
    assert headers["x-tokenworks-reason"].startswith(
        "lowest cost: price 100000000 nano/Mtok, load 0/64; 3 el"
    )
    assert headers["x-ratelimit-limit-requests"] == "60"
    assert headers["x-ratelimit-remaining-requests"] == "59"
    assert headers["x-ratelimit-reset-requests"].endswith("s")
    assert headers["x-ratelimit-limit-tokens"] == "100000"
    assert int(headers["x-ratelimit-remaining-tokens"]) < 100_000
    assert "x-tokenworks-receipt" not in headers
    assert "access-control-allow-origin" not in headers
    assert record.requests_per_minute == 60


@pytest.mark.parametrize("size", [1, 2, 7, 33])
def test_receipt_never_reaches_the_client_however_it_is_cut(world: World, size: int) -> None:
    for stub in world.workers:
        stub.write_bytes = size
    response = world.post(world.request(stream=True))
    assert "receipt" not in response.text
    assert "signature" not in response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    assert len(frames_of(response.text)) == 3
    assert verify(world.event(response.headers["x-request-id"]).receipt) == []


def test_hold_is_made_for_the_worst_case_and_given_back(world: World) -> None:
    tenant_id, key, record = world.tenant_make(10**9)
    world.workers[0].chunk_s = 0.05
    with_hold = []
    thread = threading.Thread(
        daemon=True, target=lambda: with_hold.append(world.post(world.request(), key=key))
    )
    thread.start()
    world.wait(lambda: world.account(tenant_id).get("held", 0) > 0, "a hold")
    held = world.account(tenant_id)["held"]
    thread.join()
    dearest = world.snapshot().workers[2].price
    bound = len("say 3") + 32
    expected = charge_for(price=dearest, prompt_tokens=bound, cached_tokens=0, completion_tokens=50)
    assert held == expected.charge_nano
    event = world.event(with_hold[0].headers["x-request-id"])
    account = world.account(tenant_id)
    assert (account["held"], account["inflight"]) == (0, 0)
    assert account["pending"] == event.charge.charge_nano
    assert world.redis.hget(redis_keys.bucket(record.key_id), "inflight") == b"0"


def test_default_limit_is_the_same_for_hold_and_worker(world: World) -> None:
    body = world.request()
    del body["max_tokens"]
    world.post(body)
    assert world.workers[0].bodies[-1]["max_tokens"] == 1024
    world.post({**body, "max_tokens": None})
    assert world.workers[0].bodies[-1]["max_tokens"] == 1024
    world.post({"model": "nano", "prompt": "x"}, path="/v1/completions")
    assert world.workers[0].bodies[-1]["max_tokens"] == 16


def test_worker_gets_salt_token_and_request_id(world: World) -> None:
    response = world.post(world.request(user="u1"))
    headers = world.workers[0].headers[-1]
    assert headers["x-request-id"] == response.headers["x-request-id"]
    salt = headers["x-tokenworks-cache-salt"]
    _, key, _ = world.tenant_make(10**9)
    world.post(world.request(), key=key)
    assert world.workers[0].headers[-1]["x-tokenworks-cache-salt"] != salt
    assert world.workers[0].bodies[-2]["user"] == "u1"


def test_decision_in_the_event_replays(world: World) -> None:
    response = world.post(world.request(provider={"order": ["alibaba"]}))
    assert response.headers["x-tokenworks-partner"] == "alibaba"
    event = world.event(response.headers["x-request-id"])
    record = {name: value for name, value in event.decision.items() if name not in ("served_by", "failovers")}
    decision = msgspec.convert(record, Decision)
    assert decision_replay(decision) == decision
    assert event.decision["served_by"] == world.workers[2].worker_id


def test_provider_preferences(world: World) -> None:
    for provider, partner in (
        ({"only": ["tencent"]}, "tencent"),
        ({"ignore": ["huawei"]}, "tencent"),
        ({"order": ["alibaba", "tencent"]}, "alibaba"),
        ({"max_price": {"prompt": 0.11, "completion": "0.11"}}, "huawei"),
    ):
        response = world.post(world.request(provider=provider))
        assert response.headers["x-tokenworks-partner"] == partner, provider
    refused = world.post(world.request(provider={"max_price": {"completion": 0.1}}))  # the levy comes on top
    assert refused.status_code == 422
    assert error_of(refused)["code"] == "no_matching_provider"
