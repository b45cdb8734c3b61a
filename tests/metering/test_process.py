"""The meter as a process: it starts, answers, survives outages and kill -9, and stops cleanly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import pytest

from core import redis_keys
from stack.ports import free_port
from tests.metering.world import World

Starter = Callable[[], tuple[subprocess.Popen[bytes], int]]


@pytest.fixture
def meter_start(world: World) -> Iterator[Starter]:
    """Starts meter processes of one slot; ends what a test leaves."""
    with ExitStack() as stack:

        def start() -> tuple[subprocess.Popen[bytes], int]:
            port = free_port()
            environment = {**os.environ, "TOKENWORKS_METRICS_PORT": str(port)}
            process = subprocess.Popen([sys.executable, "-m", "metering.run"], env=environment)
            stack.callback(_end, process)
            return process, port

        yield start


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait(10)


def status(port: int, path: str) -> int:
    """The HTTP status of a page of the meter; 0 while it does not answer."""
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return int(response.status)
    except HTTPError as error:
        return error.code
    except URLError:
        return 0


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until ``condition`` holds; fail when it does not in 150 s."""
    end = time.monotonic() + 150
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_killed_meter_loses_and_doubles_nothing(world: World, meter_start: Starter) -> None:
    process, port = meter_start()
    wait_for(lambda: status(port, "/readyz") == 200)
    events = [world.event(completion_tokens=count) for count in range(600)]
    for count, event in enumerate(events):
        world.settle(event)
        if count == 300:
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            process, port = meter_start()
    wait_for(lambda: world.redis.xlen(redis_keys.USAGE_STREAM) == 0)
    total = sum(event.charge.charge_nano for event in events)
    assert world.records() == {event.request_id: event.charge.charge_nano for event in events}
    assert world.balance() == 1_000_000_000 - total == world.available()
    assert (world.account()["pending"], world.ledger_sum()) == (0, 0)
    assert status(port, "/healthz") == 200
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
        assert b"tokenworks_meter_events_posted_total" in response.read()
    assert status(port, "/other") == 404
    process.terminate()
    assert process.wait(15) == 0


def test_missing_variable_is_named(world: World) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    done = subprocess.run(
        [sys.executable, "-m", "metering.run"], env=environment, capture_output=True, check=False, timeout=200
    )
    assert done.returncode != 0
    assert b"REDIS_URL" in done.stderr
