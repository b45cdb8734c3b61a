"""Every refusal: status, four fields, request id, retry headers; and no worker ever sees a bad body."""

from __future__ import annotations

import datetime
from typing import Any

import openai
import pytest

from core.clock import clock
from core.secrets import new_secret
from tests.gateway.world import World, error_of

GOOD: dict[str, Any] = {"model": "nano", "messages": [{"role": "user", "content": "say 1"}]}
TOOL = {"role": "king", "content": ""}
CHEAP = {"prompt": "cheap"}


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"{nope", 400, "invalid_json", None),
        (b"", 400, "invalid_json", None),
        (b"[]", 400, "invalid_type", None),
        ({"model": "nano"}, 400, "missing_required_parameter", "messages"),
        ({**GOOD, "messages": []}, 422, "invalid_value", "messages"),
        ({**GOOD, "messages": [{"role": "user", "content": 3}]}, 400, "invalid_type", "messages[0].content"),
        ({**GOOD, "messages": [TOOL]}, 400, "unsupported_parameter", "messages[0].role"),
        ({**GOOD, "temperature": 2.1}, 422, "invalid_value", "temperature"),
        ({**GOOD, "temperature": "hot"}, 400, "invalid_type", "temperature"),
        ({**GOOD, "top_p": 0}, 422, "invalid_value", "top_p"),
        ({**GOOD, "max_tokens": 0}, 422, "invalid_value", "max_tokens"),
        ({**GOOD, "max_tokens": 4, "max_completion_tokens": 5}, 422, "invalid_value", "max_tokens"),
        ({**GOOD, "stop": ["a"] * 17}, 422, "invalid_value", "stop"),
        ({**GOOD, "n": 129}, 422, "invalid_value", "n"),
        ({**GOOD, "audio": {}}, 400, "unsupported_parameter", "audio"),
        ({**GOOD, "temprature": 1}, 400, "unknown_parameter", "temprature"),
        ({**GOOD, "stream_options": {"include_usage": True}}, 400, "invalid_value", "stream_options"),
        ({**GOOD, "provider": {"max_price": CHEAP}}, 422, "invalid_value", "provider.max_price.prompt"),
        ({**GOOD, "model": "other"}, 404, "model_not_found", "model"),
    ],
)  # fmt: skip
def test_bad_body_is_refused_and_reaches_no_worker(
    world: World, body: Any, status: int, code: str, param: str | None
) -> None:
    seen = [len(stub.bodies) for stub in world.workers]
    headers = {"authorization": f"Bearer {world.key.plain}"}
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    response = world.http.post(f"{world.url}/v1/chat/completions", headers=headers, **sent)
    error = error_of(response)
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == "invalid_request_error"
    assert [len(stub.bodies) for stub in world.workers] == seen


def test_json_error_names_the_position(world: World) -> None:
    headers = {"authorization": f"Bearer {world.key.plain}"}
    response = world.http.post(f"{world.url}/v1/completions", content=b'{"model":"m",,}', headers=headers)
    assert "byte 13" in error_of(response)["message"]


def test_wrong_key_comes_before_everything_else(world: World) -> None:
    for key in ("nonsense", new_secret("sk").plain):
        for body in (GOOD, {"bad": 1}, {**GOOD, "model": "other"}):
            response = world.post(body, key=key)
            assert response.status_code == 401
            error = error_of(response)
            assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
    assert world.http.get(f"{world.url}/v1/models").status_code == 401


def test_expired_key_is_a_wrong_key(world: World) -> None:
    past = clock.now_ms() - int(datetime.timedelta(seconds=1).total_seconds() * 1000)
    _, key, _ = world.tenant_make(10**9, expires_at_ms=past)
    assert world.post(GOOD, key=key).status_code == 401
    assert world.post({"bad": 1}, key=key).status_code == 401


def test_key_may_be_limited_to_models(world: World) -> None:
    tenant_id, key, _ = world.tenant_make(10**9, models=("other",))
    response = world.post(GOOD, key=key)
    assert response.status_code == 403
    assert error_of(response)["code"] == "model_not_allowed"
    assert world.account(tenant_id) == {"credit": 10**9, "version": 1}
    headers = {"authorization": f"Bearer {key}"}
    assert world.http.get(f"{world.url}/v1/models", headers=headers).json()["data"] == []
    assert world.http.get(f"{world.url}/v1/models/nano", headers=headers).status_code == 404


def test_no_money_is_402_and_not_retried(world: World) -> None:
    tenant_id, key, _ = world.tenant_make(100)
    response = world.post(GOOD, key=key)
    assert response.status_code == 402
    assert response.headers["x-should-retry"] == "false"
    assert error_of(response)["code"] == "insufficient_balance"
    assert response.headers["x-ratelimit-limit-requests"] == "6000"
    client = openai.OpenAI(api_key=key, base_url=f"{world.url}/v1")
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**GOOD)
    assert caught.value.status_code == 402
    assert world.account(tenant_id) == {"credit": 100, "version": 1}


def test_request_rate_is_429_with_times(world: World) -> None:
    _, key, _ = world.tenant_make(10**9, requests_per_minute=2)
    statuses = [world.post(GOOD, key=key).status_code for _ in range(2)]
    response = world.post(GOOD, key=key)
    assert [*statuses, response.status_code] == [200, 200, 429]
    error = error_of(response)
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    wait_ms = int(response.headers["retry-after-ms"])
    assert 0 < wait_ms <= 30_000
    assert int(response.headers["retry-after"]) == -(-wait_ms // 1000)
    assert response.headers["x-ratelimit-remaining-requests"] == "0"


def test_token_rate_takes_the_bound_and_gives_back_the_rest(world: World) -> None:
    _, key, _ = world.tenant_make(10**9, tokens_per_minute=200)
    for _ in range(3):  # each holds 87 of 200, and uses 6
        assert world.post({**GOOD, "max_tokens": 50}, key=key).status_code == 200
    refused = world.post({**GOOD, "max_tokens": 199}, key=key)
    assert refused.status_code == 429
    assert "tokens" in error_of(refused)["message"]


def test_body_too_large_is_413(world: World) -> None:
    response = world.post({**GOOD, "user": "x" * (4 * 1024 * 1024)})
    assert response.status_code == 413
    assert error_of(response)["code"] == "body_too_large"


def test_unknown_paths_and_methods(world: World) -> None:
    assert world.http.get(f"{world.url}/v1/nothing").status_code == 404
    response = world.http.get(f"{world.url}/v1/chat/completions")
    assert response.status_code == 405
    assert "POST" in error_of(response)["message"]


def test_probes_and_metrics(world: World) -> None:
    assert world.http.get(f"{world.url}/readyz").json() == {"status": "ok", "redis": True, "snapshot": True}
    world.post(GOOD)
    text = world.http.get(f"{world.url}/metrics").text
    assert 'tokenworks_gateway_requests_total{endpoint="chat",partner="huawei",status="200"}' in text
    assert "tokenworks_gateway_settle_backlog_bytes" in text


def test_log_has_one_line_a_request_and_no_content(world: World) -> None:
    response = world.post(world.request(say="say 1 sesame"))
    request_id = response.headers["x-request-id"]
    world.wait(lambda: request_id in world.log_text(), "the log line")
    text = world.log_text()
    assert text.count(f'"request_id":"{request_id}"') == 1
    assert "sesame" not in text
    assert world.key.plain not in text


def test_heartbeats_are_checked(world: World) -> None:
    stub = world.workers[0]
    stranger = type(stub)(world.secret)
    assert world.heartbeat(stranger).status_code == 404
    right_key, stub.key = stub.key, stranger.key
    forged = world.heartbeat(stub)
    stub.key = right_key
    assert (forged.status_code, error_of(forged)["code"]) == (401, "bad_signature")
    assert world.heartbeat(stub).status_code == 204
    replayed = world.heartbeat(stub, seq=0, at_ms=clock.now_ms() - 5000)
    assert (replayed.status_code, error_of(replayed)["code"]) == (409, "replayed")
    assert world.heartbeat(stub, release_digest="e" * 64).status_code == 403
    assert world.heartbeat(stub, at_ms=clock.now_ms() - 60_000).status_code == 401
    assert world.http.post(f"{world.url}/internal/heartbeat", json={}).status_code == 400
    for garbage in (b'{"\xff":1}', b'{"signature":"","x":' + b"[" * 10_000):
        assert world.http.post(f"{world.url}/internal/heartbeat", content=garbage).status_code == 400


def test_a_worker_cannot_stop_routing_with_a_number(world: World) -> None:
    stub = world.workers[0]
    for figures in ({"running": 10**4299}, {"queued": -1}, {"max_running": -(10**30)}, {"seq": 2**63}):
        assert world.heartbeat(stub, **figures).status_code == 400
    assert world.post(world.request()).status_code == 200
