"""What a token costs the worker's front, in CPU time: from the engine's message to the bytes on a socket.

`python -m bench.worker_front [--streams 32] [--tokens 200] [--rounds 3] [--pause MS] [--profile]`

A process that computes nothing plays the engine (`bench.worker_front_engine`): one token a step for every
stream, with a pause between steps. Another reads the answers. Only the front's own time is counted.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import uvloop

from bench.report import Row, report
from inference.engine.child import EngineChild
from inference.engine.remote import RemoteEngine
from inference.engine.types import EngineConfig
from inference.messages import Enrolment
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write
from inference.worker.journal.journal import Journal
from inference.worker.runtime import Runtime, Service
from inference.worker.server.app import WorkerApp
from inference.worker.server.http import HttpServer, listener_bind
from inference.worker.signing import key_load

_BEARER = "bench"
_MODEL = "bench"
PAUSE_VARIABLE = "BENCH_PAUSE_MS"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.worker_front")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pause", type=float, default=5.0, help="milliseconds between steps")
    parser.add_argument("--choices", type=int, default=1)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    options = parser.parse_args(arguments)
    os.environ[PAUSE_VARIABLE] = str(options.pause)
    profile = cProfile.Profile() if options.profile else None
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        costs_us = runner.run(_measure(options, profile))
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)
        return
    name = f"front, {options.streams} streams, a step every {options.pause:g} ms"
    rows = [(f"{name}, median", statistics.median(costs_us)), (f"{name}, best", min(costs_us))]
    report("worker_front", [Row(metric, cost_us, "CPU µs per token") for metric, cost_us in rows])


async def _measure(options: argparse.Namespace, profile: cProfile.Profile | None) -> list[float]:
    costs_us = []
    with tempfile.TemporaryDirectory() as folder:
        async with _serving(Path(folder), options.streams * options.choices) as url:
            for number in range(options.rounds + 1):
                reader = await _reader(url, options, number)
                before_s = time.process_time()
                if profile is not None and number:
                    profile.enable()
                if await reader.wait():
                    raise RuntimeError("the reader failed")
                if profile is not None:
                    profile.disable()
                spent_s = time.process_time() - before_s
                costs_us.append(spent_s * 1e6 / options.streams / options.tokens / options.choices)
    return costs_us[1:]


@asynccontextmanager
async def _serving(folder: Path, places: int) -> AsyncIterator[str]:
    """A worker's front around the engine that computes nothing; yields its address."""
    random_checkpoint_write(path=folder / "model", config=TINY_V3)
    config = EngineConfig(max_running=places)
    engine = await RemoteEngine.launch(
        folder / "model", config, child=EngineChild.start(config.threads, "bench.worker_front_engine")
    )
    journal = Journal(folder / "journal", key_load(folder / "key.pem"))
    runtime = Runtime(release=_MODEL)
    enrolment = Enrolment("wrk_1", "pol_1", "par_1", _BEARER, [], 1000)
    runtime.begin(Service(engine=engine, journal=journal, enrolment=enrolment, release_digest="ab" * 32))
    listener = listener_bind("127.0.0.1", 0)
    http = HttpServer(WorkerApp(runtime), listener)
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await http.stop()
        await engine.close()
        journal.close()


async def _reader(url: str, options: argparse.Namespace, number: int) -> asyncio.subprocess.Process:
    wanted = [url, str(options.streams), str(options.tokens), str(options.choices), str(number)]
    return await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.worker_front_reader", *wanted)


def request_bytes(*, tokens: int, choices: int, request_id: str) -> bytes:
    """One streamed chat request."""
    body = orjson.dumps(
        {
            "model": _MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True,
            "max_tokens": tokens, "n": choices, "stream_options": {"include_usage": True},
        }
    )  # fmt: skip
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {_BEARER}\r\n"
        f"x-request-id: {request_id}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


if __name__ == "__main__":
    main()
