"""kill -9 of each process in turn, under load: clear endings for clients, exact books afterwards."""

from __future__ import annotations

import asyncio
import signal

import pytest

from stack.running import Stack
from tests.flows.books import Books
from tests.flows.load import Ending, ask_many

REQUESTS = 36
TOKENS = 600  # more than the engines can write before the process dies
ALLOWED = {
    "gateway": {"done", "error", "broken"},
    "worker-huawei": {"done", "error"},
    "meter": {"done"},
    "valkey": {"done", "error"},
    "postgres": {"done"},
}


@pytest.mark.parametrize("victim", ALLOWED)
async def test_nothing_is_lost_or_charged_twice(stack: Stack, books: Books, victim: str) -> None:
    books.wait_settled()
    for name in stack.pids():
        stack.wait_ready(name)
    before = books.usage()

    load = asyncio.create_task(
        ask_many(stack, range(REQUESTS), max_tokens=TOKENS, whole_every=4, to_the_limit=True)
    )
    await asyncio.sleep(1.0)
    assert not load.done(), "the load must still be running when the process dies"
    stack.kill(victim, signal.SIGKILL)
    await asyncio.to_thread(stack.wait_ready, victim)
    endings = await load

    _check_endings(endings, ALLOWED[victim])
    books.wait_settled()
    books.check()
    billed = books.usage().keys() - before.keys()
    completed = {ending.request_id for ending in endings if ending.kind == "done"}
    assert completed <= billed, "what was completed is billed"
    assert len(billed) <= REQUESTS
    again = await ask_many(stack, range(6), max_tokens=8)
    assert {ending.kind for ending in again} == {"done"}, "the utility serves on"


def _check_endings(endings: list[Ending], allowed: set[str]) -> None:
    assert {ending.kind for ending in endings} <= allowed, [e for e in endings if e.kind not in allowed]
    for ending in endings:
        if ending.kind == "error":
            assert ending.status in {200, 500, 502, 503}
            assert len(ending.detail) > 10, "an error says what happened"
