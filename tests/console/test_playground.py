"""The playground: its relay, its short-lived key, and what an answer cost."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import redis
from asgiref.sync import sync_to_async
from django.test import AsyncClient, Client, override_settings

from console.relay import Ask, answer_relay, ask_parse
from core import redis_keys
from core.clock import clock
from core.secrets import digest_secret
from directory import publish_all
from governance.charter import charter_load
from governance.services import charter_adopt
from stack.layout import ROOT
from tenants.models import ApiKey, KeyKind, User
from tenants.scope import system_scope
from tests.console.stub_gateway import DONE, chunk, gateway_running
from tests.console.world import World, usage_make

CHAT = {
    "mode": "chat",
    "model": "tokenworks-nano",
    "messages": [{"role": "user", "content": "hi"}],
    "temperature": 0,
    "max_tokens": 8,
}
FIM = {
    "mode": "fim",
    "model": "tokenworks-nano",
    "prefix": "def f():\n",
    "suffix": "\n",
    "temperature": 0.5,
    "max_tokens": 8,
}
Events = list[tuple[str, dict[str, Any]]]


def ask(form: dict[str, Any]) -> Ask:
    return ask_parse(json.dumps(form).encode())


def events_of(text: str) -> Events:
    frames = [frame.split("\n") for frame in text.strip().split("\n\n")]
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in frames]


async def relayed(url: str, form: dict[str, Any]) -> Events:
    parts = [part async for part in answer_relay(gateway_url=url, secret="s", ask=ask(form))]
    return events_of(b"".join(parts).decode())


async def test_an_answer_is_passed_on_as_it_comes() -> None:
    frames = [b": keep-alive\n", chunk("Hel"), chunk("lo"), chunk("", "stop"), DONE]
    async with gateway_running(frames=frames) as stub:
        events = await relayed(stub.url, CHAT)
    assert events == [
        ("start", {"request_id": "req_stub"}),
        ("delta", {"text": "Hel"}),
        ("delta", {"text": "lo"}),
        ("end", {"finish_reason": "stop"}),
    ]
    path, key, body = stub.requests[0]
    assert (path, key) == ("/v1/chat/completions", "bearer s")
    assert body["stream"] is True
    assert body["messages"] == CHAT["messages"]


async def test_a_gap_goes_to_completions_with_its_suffix() -> None:
    text = {"choices": [{"index": 0, "text": "    pass", "finish_reason": "length"}]}
    async with gateway_running(frames=[f"data: {json.dumps(text)}\n\n".encode(), DONE]) as stub:
        events = await relayed(stub.url, FIM)
    assert events[1:] == [("delta", {"text": "    pass"}), ("end", {"finish_reason": "length"})]
    path, _key, body = stub.requests[0]
    assert (path, body["prompt"], body["suffix"]) == ("/v1/completions", "def f():\n", "\n")


@pytest.mark.parametrize(
    ("status", "frames", "message"),
    [
        (
            "402 Payment Required",
            [b'{"error": {"message": "Balance used up."}}'],
            "Balance used",
        ),
        ("502 Bad Gateway", [b"<html>"], "cannot be read"),
        ("200 OK", [chunk("Hel")], "cut off"),
        ("200 OK", [chunk("Hel"), b'data: {"error": {"message": "Worker lost."}}\n\n'], "Worker lost"),
    ],
)
async def test_failures_are_told_in_words(status: str, frames: list[bytes], message: str) -> None:
    async with gateway_running(status=status, frames=frames) as stub:
        events = await relayed(stub.url, CHAT)
    assert events[-1][0] == "problem"
    assert message in events[-1][1]["message"]


async def test_an_unreachable_gateway_is_told_in_words() -> None:
    events = await relayed("http://127.0.0.1:1", CHAT)
    assert [name for name, _ in events] == ["problem"]
    assert "cannot be reached" in events[0][1]["message"]


async def test_stopping_closes_the_gateways_stream() -> None:
    async with gateway_running(frames=[chunk("more ")], endless=True) as stub:
        answer = answer_relay(gateway_url=stub.url, secret="s", ask=ask(CHAT))
        seen = [await anext(answer), await anext(answer)]
        await answer.aclose()  # type: ignore[attr-defined]
        await stub.closed.wait()
    assert b"start" in seen[0]


async def _send(client: AsyncClient, form: object) -> tuple[int, str]:
    response = await client.post(
        "/console/playground/stream", data=json.dumps(form), content_type="application/json"
    )
    content: AsyncIterable[bytes] | None = getattr(response, "streaming_content", None)
    if content is None:
        return response.status_code, response.content.decode()
    return response.status_code, b"".join([part async for part in content]).decode()


async def _client(user: User) -> AsyncClient:
    client = AsyncClient()
    await client.aforce_login(user)
    return client


@asynccontextmanager
async def _gateway_at(url: str) -> AsyncIterator[None]:
    with override_settings(GATEWAY_URL=url):
        yield


@sync_to_async
def _playground_keys(user: User) -> list[ApiKey]:
    with system_scope():
        return list(ApiKey.objects.filter(kind=KeyKind.PLAYGROUND, created_by=user).order_by("id"))


async def test_one_key_a_session_renewed_and_ended(world: World, redis_url: str) -> None:
    user = await sync_to_async(world.person)("player@demo.test")
    client = await _client(user)
    async with gateway_running(frames=[chunk("hi"), DONE]) as stub, _gateway_at(stub.url):
        for _ in range(2):
            status, text = await _send(client, CHAT)
            assert (status, events_of(text)[-1][0]) == (200, "end")
        with clock.frozen(clock.now() + timedelta(minutes=9, seconds=30)):
            await _send(client, CHAT)
    used = [key.removeprefix("bearer ") for _, key, _ in stub.requests]
    assert used[0] == used[1] != used[2]
    keys = await _playground_keys(user)
    assert [key.digest for key in keys] == [digest_secret(used[0]), digest_secret(used[2])]
    assert keys[0].expires_at is not None
    assert keys[0].expires_at - keys[0].created_at < timedelta(minutes=10, seconds=1)
    session = await client.asession()
    assert used[2] not in str(dict(await session.aitems()))
    with redis.Redis.from_url(redis_url) as valkey:
        assert valkey.exists(redis_keys.key_record(keys[1].digest))
        await client.post("/sign-out")
        assert not valkey.exists(redis_keys.key_record(keys[1].digest))
    assert (await _playground_keys(user))[1].revoked_at is not None


@pytest.mark.parametrize(
    ("person", "form", "status", "message"),
    [
        ("viewer", CHAT, 403, "Viewers may not"),
        ("admin", CHAT, 404, "no organisation"),
        ("owner", {**CHAT, "temperature": 9}, 400, "temperature"),
        ("owner", {**CHAT, "messages": []}, 400, "messages"),
        ("owner", {**CHAT, "extra": 1}, 400, "extra"),
        ("owner", "nonsense", 400, "cannot be read"),
    ],
)
async def test_what_may_not_be_sent_is_explained(
    person: str, form: object, status: int, message: str, world: World
) -> None:
    client = await _client(getattr(world, person))
    answered, text = await _send(client, form)
    assert answered == status
    assert message in json.loads(text)["error"]["message"]


async def test_a_form_that_is_no_text_is_explained(world: World) -> None:
    client = await _client(world.owner)
    raw = b'{"mode":"chat","model":"\xff"}'
    answer = await client.post("/console/playground/stream", data=raw, content_type="application/json")
    assert answer.status_code == 400


async def test_strangers_are_told_that_the_session_ended(world: World) -> None:
    status, text = await _send(AsyncClient(), CHAT)
    assert status == 401
    assert "Sign in again" in json.loads(text)["error"]["message"]


def test_the_outcome_waits_for_the_meter_then_tells_the_cost(world: World, owner_client: Client) -> None:
    waiting = owner_client.get("/console/playground/outcome/req_later").content.decode()
    assert "attempt=1" in waiting
    given_up = owner_client.get("/console/playground/outcome/req_later?attempt=20").content.decode()
    assert "not posted yet" in given_up
    assert "hx-get" not in given_up
    record = usage_make(world)
    settled = owner_client.get(f"/console/playground/outcome/{record.request_id}").content.decode()
    for expected in (
        "Served by",
        "Huawei Cloud",
        f"/console/receipts/{record.request_id}",
        "eligible workers",
    ):
        assert expected in settled


def test_the_page_offers_what_workers_serve(world: World, owner_client: Client) -> None:
    assert "No model is being served" in owner_client.get("/console/playground").content.decode()
    with system_scope():
        charter_adopt(document=charter_load(ROOT / "charters" / "deepseek.yaml"))
    publish_all()
    page = owner_client.get("/console/playground").content.decode()
    assert "<option>tokenworks-nano</option>" in page
    assert "Before the gap" in owner_client.get("/console/playground?mode=fim").content.decode()
