"""The engine in a process of its own: the same answers, and either side's death is known to the other."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from safetensors.torch import save_file

from inference.engine import AsyncEngine, EngineConfig, GenerationRequest, RequestRejected, SamplingParams
from inference.engine.remote import EngineDiedError, RemoteEngine
from inference.engine.types import EngineStats, TokenEvent
from inference.engine.wire import (
    Ended,
    FrameReader,
    Open,
    Ready,
    Stepped,
    Submit,
    frame_encode,
)

CONFIG = EngineConfig(page_size=8, pages=64, max_running=4, step_token_budget=64, max_queued=5)


@pytest_asyncio.fixture
async def engine(tiny_dir: Path) -> AsyncIterator[RemoteEngine]:
    engine = await RemoteEngine.launch(tiny_dir, CONFIG)
    yield engine
    await engine.close()


def request(name: str, *, max_tokens: int = 10, **params: object) -> GenerationRequest:
    fields: dict[str, object] = {"max_tokens": max_tokens, "temperature": 0.0}
    return GenerationRequest(name, tuple(map(ord, name)), SamplingParams(**(fields | params)))  # type: ignore[arg-type]


async def collect(engine: AsyncEngine | RemoteEngine, one: GenerationRequest) -> list[TokenEvent]:
    return [event async for event in engine.generate(one)]


async def until(holds: Callable[[], bool]) -> None:
    """The test's time limit ends the wait."""
    while True:
        if holds():
            return
        await asyncio.sleep(0.005)


async def idle(engine: RemoteEngine) -> EngineStats:
    """The statistics once nothing is running."""
    await until(lambda: not (engine.stats().running or engine.stats().queued))
    return engine.stats()


async def test_it_serves_as_the_engine_in_this_process_does(engine: RemoteEngine, tiny_dir: Path) -> None:
    local = AsyncEngine.load(tiny_dir, CONFIG)
    await local.start()
    requests = [request(f"one-{i}", temperature=float(i % 2), seed=i) for i in range(9)]
    expected = await asyncio.gather(*(collect(local, one) for one in requests))
    await local.close()
    assert engine.max_model_len == local.max_model_len

    for bad, code in (
        (request("a", max_tokens=512), "context_length_exceeded"),
        (request(""), "empty_prompt"),
    ):
        with pytest.raises(RequestRejected) as caught:
            engine.generate(bad)
        assert caught.value.code == code
    with pytest.raises(RequestRejected) as caught:
        await collect(engine, request("b", seed=2**80))
    assert caught.value.code == "invalid_params"
    assert engine.stats().steps == 0

    for number in (signal.SIGTERM, signal.SIGINT):  # sent to all processes, they are the front's to obey
        os.kill(engine.pid, number)
    assert await asyncio.gather(*(collect(engine, one) for one in requests)) == expected
    assert (await idle(engine)).generated_tokens == sum(map(len, expected))

    stream = engine.generate(request("long", max_tokens=400))
    await anext(stream)
    await stream.aclose()
    stats = await idle(engine)
    assert stats.pages_free == stats.pages_total
    assert stats.generated_tokens < sum(map(len, expected)) + 400
    assert stats.stepping_s > 0
    await collect(engine, request("long"))  # the name is free again


async def test_closing_ends_everybody_and_the_process(tiny_dir: Path) -> None:
    engine = await RemoteEngine.launch(tiny_dir, CONFIG)
    watched = os.pidfd_open(engine.pid)
    tasks = [asyncio.create_task(collect(engine, request(f"long-{i}", max_tokens=400))) for i in range(6)]
    await until(lambda: engine.stats().running == 4)
    await engine.close()
    for events in await asyncio.gather(*tasks):
        assert events[-1].finish_reason == "cancelled"
    assert dies(watched)
    await engine.ended()
    with pytest.raises(RequestRejected) as caught:
        engine.generate(request("late"))
    assert caught.value.code == "engine_closed"
    await engine.close()  # twice is fine


async def test_a_killed_engine_fails_what_is_in_flight(engine: RemoteEngine) -> None:
    tasks = [asyncio.create_task(collect(engine, request(f"long-{i}", max_tokens=400))) for i in range(6)]
    await until(lambda: engine.stats().running == 4)
    os.kill(engine.pid, signal.SIGKILL)
    await engine.ended()
    for events in await asyncio.gather(*tasks):
        assert events[-1].finish_reason == "lost"
        assert events[-1].completion_tokens == sum(len(event.token_ids) for event in events)
    with pytest.raises(RequestRejected) as caught:
        engine.generate(request("late"))
    assert caught.value.code == "engine_closed"


async def test_a_folder_that_is_no_checkpoint_is_named(tmp_path: Path, tiny_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        await RemoteEngine.launch(tmp_path, CONFIG)
    shutil.copytree(tiny_dir, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(ValueError, match="safetensors"):
        await RemoteEngine.launch(tmp_path, CONFIG)


async def test_a_process_that_dies_while_it_loads_is_no_engine(
    tiny_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    with pytest.raises(EngineDiedError):
        await RemoteEngine.launch(tiny_dir, CONFIG)


class RawFront:
    """The bare socket of a front, to say what no front would say."""

    def __init__(self, config: EngineConfig = CONFIG) -> None:
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(60)
        self.reader: FrameReader[Ready | Stepped | Ended] = FrameReader(Ready | Stepped | Ended)
        self.heard: list[Ready | Stepped | Ended] = []
        command = [sys.executable, "-m", "inference.engine.process", str(theirs.fileno())]
        with theirs:
            self.child = subprocess.Popen(
                command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
            )

    def hear(self) -> Ready | Stepped | Ended | None:
        """The next message; None at the end of the stream."""
        while not self.heard and (data := self.socket.recv(65536)):
            self.heard += self.reader.feed(data)
        return self.heard.pop(0) if self.heard else None

    def end(self) -> tuple[int, bytes]:
        """Exit status and log of the engine."""
        _, log = self.child.communicate(timeout=60)
        self.socket.close()
        return self.child.returncode, log


async def test_an_engine_ends_when_its_front_talks_nonsense(tiny_dir: Path) -> None:
    front = RawFront()
    front.socket.sendall(frame_encode(Open(str(tiny_dir), CONFIG, {"process": "engine"})))
    assert isinstance(front.hear(), Ready)
    front.socket.sendall(frame_encode(Submit(request("cut short", max_tokens=400))) + b"\x00\x00\x00\x01\xc1")
    last = None
    while (message := front.hear()) is not None:
        last = message
    assert isinstance(last, Ended)
    assert last.reason == "lost"
    status, log = front.end()
    assert status == os.EX_SOFTWARE
    assert b"ProtocolError" in log


async def test_an_engine_waits_for_a_front_that_does_not_read_and_ends_with_it(tiny_dir: Path) -> None:
    front = RawFront()
    front.socket.sendall(frame_encode(Open(str(tiny_dir), CONFIG, {})))
    assert isinstance(front.hear(), Ready)
    names = [f"{i}" for i in range(50)]
    front.socket.sendall(b"".join(frame_encode(Submit(request(n, max_tokens=60))) for n in names))
    await until(lambda: len(front.socket.recv(1 << 22, socket.MSG_PEEK)) > 50_000)
    counts = dict.fromkeys(names, 0)
    finished: set[str] = set()
    while len(finished) < len(names):
        message = front.hear()
        assert isinstance(message, Stepped)
        for event in message.events:
            counts[event.request_id] += len(event.token_ids)
            assert counts[event.request_id] == event.completion_tokens
            if event.finish_reason:
                finished.add(event.request_id)
    front.socket.sendall(frame_encode(Submit(request("long", max_tokens=400))))
    assert isinstance(front.hear(), Stepped)
    front.socket.close()
    status, log = front.end()
    assert status == 0
    assert b"Traceback" not in log


def test_the_engine_goes_with_a_front_that_is_killed(tiny_dir: Path) -> None:
    script = (
        "import asyncio, sys, time\nfrom pathlib import Path\n"
        "from inference.engine import EngineConfig\nfrom inference.engine.remote import RemoteEngine\n"
        "async def main():\n"
        f"    engine = await RemoteEngine.launch(Path({str(tiny_dir)!r}), EngineConfig(pages=64))\n"
        "    print(engine.pid, flush=True)\n    await asyncio.sleep(600)\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as front:
        assert front.stdout is not None
        watched = os.pidfd_open(int(front.stdout.readline()))
        front.kill()
        front.wait()
        assert dies(watched)


def dies(descriptor: int) -> bool:
    """Whether the process ends within a generous while."""
    readable, _, _ = select.select([descriptor], [], [], 20)
    os.close(descriptor)
    return bool(readable)


@pytest.mark.asyncio
async def test_adapters_come_and_go_across_the_connection(tiny_dir: Path, tmp_path: Path) -> None:
    module = "base_model.model.model.layers.0.self_attn.o_proj"
    factors = {f"{module}.lora_A.weight": torch.ones(2, 64), f"{module}.lora_B.weight": torch.ones(64, 2)}
    save_file(factors, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
    engine = await RemoteEngine.launch(tiny_dir, replace(CONFIG, adapters_max=1))
    try:
        with pytest.raises(RequestRejected, match="no adapter one is loaded"):
            await collect(engine, replace(request("r"), adapter="one"))
        await engine.adapter_load("one", tmp_path)
        with pytest.raises(RequestRejected, match="not readable"):
            await engine.adapter_load("two", tmp_path / "absent")
        assert engine.adapters == ("one",)
        changed = await collect(engine, replace(request("r"), adapter="one"))
        assert changed[-1].finish_reason == "length"
        await engine.adapter_drop("one")
        with pytest.raises(RequestRejected, match="no adapter one is loaded"):
            await engine.adapter_drop("one")
    finally:
        await engine.close()
    with pytest.raises(RequestRejected, match="not running"):
        await engine.adapter_load("one", tmp_path)
