"""Gateway and Valkey are killed at every step; nothing is charged twice, nothing served is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest
import redis

from core import redis_keys
from gateway.flight import DECODER as SETTLEMENTS
from metering.holds import hold_parse
from tests.gateway.conftest import OwnWorld
from tests.gateway.world import World, error_of


def journal_lines(world: World) -> list[bytes]:
    folder = world.folder / "gateway" / world.gateway_id
    return [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_bytes().splitlines()]


def test_settlement_outlives_gateway_and_valkey(own_world: OwnWorld) -> None:
    """Valkey dies while a request is served, the gateway before it could settle: the journal is replayed."""
    world, valkey = own_world()
    world.workers[0].chunk_s = 0.3
    answers: list[httpx.Response] = []
    thread = threading.Thread(daemon=True, target=lambda: answers.append(world.post(world.request())))
    thread.start()
    world.wait(lambda: world.workers[0].running == 1, "the request to be served")
    valkey.kill()  # between hold and settle
    thread.join()
    assert answers[0].status_code == 200
    refused = world.post(world.request())
    assert refused.status_code == 503
    error_of(refused)
    world.gateway_kill()
    valkey.start()
    assert world.redis.zcard(redis_keys.HOLDS) >= 1
    assert world.events() == []
    world.gateway_start()
    event = world.event(answers[0].headers["x-request-id"])
    world.wait(world.settled)
    assert world.account()["pending"] == event.charge.charge_nano
    assert (world.account()["held"], world.account()["inflight"]) == (0, 0)
    world.gateway_stop()
    (world.folder / "gateway" / world.gateway_id / "cursor.json").unlink()
    world.gateway_start()  # replays everything: nothing may happen twice
    time.sleep(0.3)
    assert len(world.events()) == 1
    assert world.account()["pending"] == event.charge.charge_nano


def test_valkey_that_lost_everything_gets_the_last_hour_again(own_world: OwnWorld) -> None:
    world, _ = own_world()
    requests = [world.post(world.request(stream=True)).headers["x-request-id"] for _ in range(5)]
    world.wait(lambda: len(world.events()) == 5)
    before = {event.request_id: event.charge for event in world.events()}
    world.redis.flushall()
    refused = world.post(world.request())
    assert refused.status_code == 503  # not 401: the key is fine, Valkey is empty
    world.publish()
    world.wait(lambda: len(world.events()) == 5, "the replay")
    assert {event.request_id: event.charge for event in world.events()} == before
    assert set(before) == set(requests)
    assert world.account()["pending"] == sum(charge.charge_nano for charge in before.values())
    world.wait(lambda: world.post(world.request()).status_code == 200, "service to resume")


def test_killed_gateway_leaves_holds_that_tell_all(own_world: OwnWorld) -> None:
    """What a sweeper needs: the hold outlives the gateway's alive key, and names prices and bounds."""
    world, _ = own_world()
    world.modes("silent", "silent", "silent")
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(httpx.Client())
        thread = threading.Thread(daemon=True, target=lambda: _quiet_post(client, world))
        thread.start()
        world.wait(lambda: world.redis.zcard(redis_keys.HOLDS) == 1)
        world.gateway_kill()
        thread.join()
    ((request_id, _),) = world.redis.zrange(redis_keys.HOLDS, 0, -1, withscores=True)
    hold = hold_parse(request_id.decode(), world.redis.hgetall(redis_keys.hold(request_id.decode())))
    assert hold.tenant_id == world.tenant_id
    assert hold.context.completion_tokens_max == 50
    assert {worker.worker_id for worker in hold.context.workers} == {one.worker_id for one in world.workers}
    assert hold.context.decision_record()["chosen"] == world.workers[0].worker_id
    assert hold.amount_nano == world.account()["held"]
    world.modes("ok", "ok", "ok")
    world.gateway_start()  # the next life of the same gateway must not keep the old one's holds alive
    world.wait(
        lambda: not world.redis.exists(redis_keys.gateway_alive(hold.gateway_id)), "the alive key to go"
    )
    assert world.redis.keys(redis_keys.gateway_alive(world.gateway_id) + "*") != []


def _quiet_post(client: httpx.Client, world: World) -> None:
    with contextlib.suppress(httpx.TransportError):
        headers = {"authorization": f"Bearer {world.key.plain}"}
        client.post(f"{world.url}/v1/chat/completions", json=world.request(), headers=headers)


def test_requests_under_kills_are_charged_once_each(own_world: OwnWorld) -> None:
    """Gateway killed twice and Valkey once under load: every completed answer is charged exactly once."""
    world, valkey = own_world()
    completed: list[str] = []
    refusals: set[int] = set()
    stop = threading.Event()

    def load() -> None:
        with httpx.Client(timeout=5) as client:
            headers = {"authorization": f"Bearer {world.key.plain}"}
            while not stop.is_set():
                try:
                    answer = client.post(
                        f"{world.url}/v1/chat/completions", json=world.request(stream=True), headers=headers
                    )
                except httpx.TransportError:
                    time.sleep(0.02)
                    continue
                if answer.status_code == 200 and answer.text.endswith("data: [DONE]\n\n"):
                    completed.append(answer.headers["x-request-id"])
                elif answer.status_code != 200:
                    refusals.add(answer.status_code)

    threads = [threading.Thread(daemon=True, target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for step in ("gateway", "valkey", "gateway"):
            time.sleep(0.5)
            if step == "gateway":
                world.gateway_kill()
                world.gateway_start()
            else:
                valkey.kill()
                valkey.start()
        time.sleep(0.5)
    finally:
        stop.set()
    for thread in threads:
        thread.join()
    assert refusals <= {503}
    assert len(completed) > 5
    world.wait(lambda: {event.request_id for event in world.events()} >= set(completed), "all charges")
    events = world.events()
    assert len(events) == len({event.request_id for event in events})
    assert world.account()["pending"] == sum(event.charge.charge_nano for event in events)
    served = {request_id for stub in world.workers for request_id in stub.entries}
    assert {event.request_id for event in events} <= served


def test_hung_valkey_is_a_fast_503_and_leaves_no_hold(own_world: OwnWorld) -> None:
    world, valkey = own_world()
    assert valkey.process is not None
    os.kill(valkey.process.pid, signal.SIGSTOP)
    response = world.post(world.request())
    assert response.status_code == 503
    assert response.headers["retry-after-ms"] == "1000"
    os.kill(valkey.process.pid, signal.SIGCONT)
    world.wait(lambda: world.post(world.request()).status_code == 200, "service to resume")
    # the admission that was never answered may have run after all: it must be void by now
    world.wait(lambda: world.settled() and world.account()["held"] == 0, "the unknown hold to be void")
    assert world.account()["inflight"] == 0


def test_sigterm_drains_streams(own_world: OwnWorld) -> None:
    world, _ = own_world()
    answers: list[httpx.Response] = []
    body = world.request(stream=True, say="slow 20")
    thread = threading.Thread(daemon=True, target=lambda: answers.append(world.post(body)))
    thread.start()
    world.wait(lambda: world.workers[0].running == 1)
    assert world.process is not None
    world.process.terminate()
    thread.join()
    assert answers[0].text.endswith("data: [DONE]\n\n")
    assert world.process.wait(10) == 0
    assert world.settled()
    assert len(world.events()) == 1


def test_two_gateways_cannot_share_a_journal(own_world: OwnWorld) -> None:
    world, _ = own_world()
    first, port = world.process, world.port
    world.port = port + 1 if port < 65000 else port - 1
    with pytest.raises(AssertionError, match="in use by another gateway"):
        world.gateway_start()
    world.process, world.port = first, port


def test_journal_holds_what_was_settled(own_world: OwnWorld) -> None:
    world, _ = own_world()
    request_id = world.post(world.request()).headers["x-request-id"]
    (line,) = journal_lines(world)
    settlement = SETTLEMENTS.decode(line)
    assert settlement.request_id == request_id
    assert settlement.event is not None
    assert settlement.charge_nano == world.event(request_id).charge.charge_nano


def test_unreachable_valkey_at_start_is_503_not_a_crash(tmp_path: Path, own_world: OwnWorld) -> None:
    world, valkey = own_world()
    world.gateway_stop()
    valkey.stop()
    world.gateway_start()
    assert world.post(world.request()).status_code == 503
    assert world.http.get(f"{world.url}/readyz").status_code == 503
    valkey.start()
    world.wait(lambda: world.post(world.request()).status_code == 200, "service to resume")
    with contextlib.suppress(redis.exceptions.RedisError):
        world.redis.ping()
