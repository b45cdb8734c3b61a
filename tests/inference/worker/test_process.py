"""The worker as a process, with the real engine on a tiny model: serve, die, come back, drain."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from inference.messages import JournalEntry, SignedEntry
from inference.tokenizer import Tokenizer
from inference.worker.__main__ import main
from inference.worker.journal.journal import Journal
from inference.worker.membership.errors import RefusedError
from inference.worker.options import options_parse
from inference.worker.process import worker_run
from inference.worker.signing import key_load, signature_is_valid

CHAT = "/v1/chat/completions"
PROMPT = "tell me about confidential matters"
BODY: dict[str, Any] = {
    "model": "tokenworks-test",
    "messages": [{"role": "user", "content": PROMPT}],
    "temperature": 0,
}


def options_make(folder: Path, model_dir: Path, control_url: str, **changes: object) -> list[str]:
    """The command line of a worker whose token and state lie in ``folder``."""
    options = {
        "name": "one",
        "model-dir": model_dir,
        "release": "tokenworks-test",
        "control-url": control_url,
        "token-file": folder / "token",
        "state-dir": folder / "state",
        "port": 0,
        "pages": 128,
        "max-running": 8,
    }
    return [f"--{name}={value}" for name, value in (options | changes).items()]


class WorkerProcess:
    """Starts and stops ``python -m inference.worker`` on one state directory."""

    def __init__(self, utility: Any, model_dir: Path, folder: Path) -> None:
        self.utility = utility
        self.folder = folder
        self.port = 0
        self.model_dir = model_dir
        self.process: asyncio.subprocess.Process | None = None
        self.log = folder / "log"
        self.environment: dict[str, str] = {}

    async def start(self, **changes: object) -> None:
        arguments = options_make(self.folder, self.model_dir, self.utility.url, port=self.port, **changes)
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "inference.worker",
                *arguments,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"} | self.environment,
            )

    async def ready(self) -> httpx.AsyncClient:
        self.utility.heartbeats.clear()
        beat = asyncio.create_task(self.utility.beat_in("ready"))
        died = asyncio.create_task(self.exit_status())
        await asyncio.wait({beat, died}, return_when=asyncio.FIRST_COMPLETED)
        assert beat.done(), self.log.read_text()
        died.cancel()
        endpoint = self.utility.enrolled[-1]["endpoint"]
        self.port = int(endpoint.rpartition(":")[2])
        return httpx.AsyncClient(
            base_url=endpoint, headers={"authorization": "Bearer dispatch-token"}, timeout=30
        )

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def exit_status(self) -> int:
        assert self.process is not None
        return await self.process.wait()

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["event"] == name]


@pytest.fixture
async def process(utility: Any, tiny_dir: Path, tmp_path: Path) -> AsyncIterator[WorkerProcess]:
    running = WorkerProcess(utility, tiny_dir, tmp_path)
    yield running
    if running.process is not None and running.process.returncode is None:
        running.process.kill()
        await running.process.wait()


async def stream_until(client: httpx.AsyncClient, request_id: str, seen: asyncio.Event) -> str:
    body = BODY | {"stream": True, "max_tokens": 120}
    text = ""
    async with client.stream("POST", CHAT, json=body, headers={"x-request-id": request_id}) as response:
        async for piece in response.aiter_text():
            text += piece
            seen.set()
    return text


async def test_a_worker_serves_dies_comes_back_and_drains(
    process: WorkerProcess, utility: Any, tiny_dir: Path
) -> None:
    await process.start()
    (process.folder / "token").write_text("token-1")
    async with await process.ready() as client:
        headers = {"x-request-id": "req_1"}
        first = (await client.post(CHAT, json=BODY | {"max_tokens": 8}, headers=headers)).json()
        tokenizer = Tokenizer.from_dir(tiny_dir)
        assert first["usage"]["prompt_tokens"] == len(tokenizer.encode_chat(BODY["messages"]))
        assert first["usage"]["completion_tokens"] <= 8
        streaming = asyncio.Event()
        cut = asyncio.create_task(stream_until(client, "req_2", streaming))
        await streaming.wait()
        engine = os.pidfd_open(process.events("model_loaded")[0]["engine_pid"])
        process.send(signal.SIGKILL)
        with pytest.raises(httpx.HTTPError):
            await cut
        assert await process.exit_status() == -signal.SIGKILL
        assert _dies(engine)

    (process.folder / "token").unlink()
    await process.start()
    async with await process.ready() as client:
        assert len(utility.enrolled) == 1
        kept = SignedEntry.from_dict((await client.get("/journal/req_1")).json())
        assert (await client.get("/journal/req_2")).status_code == 404
        assert kept.entry.completion_tokens == first["usage"]["completion_tokens"]
        again = await client.post(CHAT, json=BODY | {"max_tokens": 8}, headers={"x-request-id": "req_3"})
        assert again.json()["choices"] == first["choices"]
        assert (await client.post(CHAT, json=BODY, headers=headers)).status_code == 409
        streaming = asyncio.Event()
        last = asyncio.create_task(stream_until(client, "req_4", streaming))
        await streaming.wait()
        process.send(signal.SIGTERM)
        await utility.beat_in("draining")
        assert (await last).endswith("data: [DONE]\n\n")
        assert await process.exit_status() == 0

    entries = _entries(process.folder / "state" / "journal", utility.enrolled[0]["public_key"])
    assert [entry.request_id for entry in entries] == ["req_1", "req_3", "req_4"]
    log = process.log.read_text()
    served = [line["request_id"] for line in process.events("request_served")]
    assert served == ["req_1", "req_3", "req_4"]
    for secret in ("confidential", "token-1", "dispatch-token", first["choices"][0]["message"]["content"]):
        assert secret not in log


@pytest.mark.parametrize("hangs", [False, True], ids=["killed", "a rank hangs"])
async def test_a_worker_whose_engine_is_lost_says_so_to_everybody_and_ends(
    process: WorkerProcess, utility: Any, hangs: bool
) -> None:
    await process.start(**({"tensor-parallel": 2, "rank-limit": 3} if hangs else {}))
    (process.folder / "token").write_text("token-1")
    async with await process.ready() as client:
        streaming = [asyncio.Event() for _ in range(10)]
        cut = [
            asyncio.create_task(stream_until(client, f"req_{n}", seen)) for n, seen in enumerate(streaming)
        ]
        await streaming[7].wait()
        engine = process.events("model_loaded")[0]["engine_pid"]
        if hangs:
            os.kill(_children(engine)[0], signal.SIGSTOP)
        else:
            os.kill(engine, signal.SIGKILL)
        texts = await asyncio.gather(*cut)
        assert await process.exit_status() == os.EX_SOFTWARE
    entries = _entries(process.folder / "state" / "journal", utility.enrolled[0]["public_key"])
    reasons = {entry.request_id: entry.finish_reason for entry in entries}
    assert len(reasons) == len(texts)
    for number, text in enumerate(texts):
        failed = reasons[f"req_{number}"] == "error"
        assert failed == ("insufficient_system_resource" in text or "server_is_overloaded" in text)
        assert text.endswith("data: [DONE]\n\n") or failed
    assert "error" in reasons.values()
    lost = [entry for entry in entries if entry.finish_reason == "error"]
    assert not any(entry.prompt_tokens or entry.completion_tokens for entry in lost)  # at the worker's cost


async def test_a_model_on_two_processes_answers_as_on_one_and_ends_when_one_dies(
    process: WorkerProcess,
) -> None:
    (process.folder / "token").write_text("token-1")
    await process.start(**{"tensor-parallel": 2})
    answers = []
    for request_id in ("req_1", "req_2"):
        async with await process.ready() as client:
            body, headers = BODY | {"max_tokens": 12}, {"x-request-id": request_id}
            answers.append((await client.post(CHAT, json=body, headers=headers)).json()["choices"])
        if request_id == "req_1":
            leader = process.events("model_loaded")[0]["engine_pid"]
            (other,) = _children(leader)
            os.kill(other, signal.SIGKILL)
            assert await process.exit_status() == os.EX_SOFTWARE
            await process.start()
    assert answers[0] == answers[1]


async def test_a_model_on_a_gpu_answers_as_on_a_cpu(process: WorkerProcess, utility: Any) -> None:
    """The GPU's kernels are run by Triton's interpreter."""
    (process.folder / "token").write_text("token-1")
    answers = []
    for device, environment in (("cuda", {"TRITON_INTERPRET": "1"}), ("cpu", {})):
        process.environment = environment
        await process.start(device=device, **{"max-running": 2, "step-token-budget": 8})
        async with await process.ready() as client:
            body, headers = BODY | {"max_tokens": 4}, {"x-request-id": f"req_{device}"}
            answers.append((await client.post(CHAT, json=body, headers=headers)).json()["choices"])
            process.send(signal.SIGTERM)
            assert await process.exit_status() == 0
    assert answers[0] == answers[1]
    entries = _entries(process.folder / "state" / "journal", utility.enrolled[0]["public_key"])
    assert entries[0].completion_tokens == entries[1].completion_tokens


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
async def test_a_device_that_is_not_there_is_named(process: WorkerProcess) -> None:
    for device, problem in (
        ("cuda", "device cuda: torch finds no GPU"),
        ("npu", "torch_npu is not installed"),
    ):
        await process.start(device=device)
        assert await process.exit_status() == os.EX_CONFIG
        assert problem in process.events("startup_failed")[-1]["problem"]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _entries(folder: Path, public_key: str) -> list[JournalEntry]:
    """All entries on disk, each checked against its predecessor and the worker's key."""
    entries: list[JournalEntry] = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            signed = SignedEntry.from_dict(json.loads(line))
            assert signed.entry.prev_hash == (entries[-1].hash() if entries else "0" * 64)
            message = signed.entry.signing_bytes()
            assert signature_is_valid(public_text=public_key, message=message, signature=signed.signature)
            entries.append(signed.entry)
    return entries


async def test_a_refused_worker_says_why(utility: Any, tiny_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("unknown-token")
    options = options_make(tmp_path, tiny_dir, utility.url)
    with pytest.raises(RefusedError, match="invalid_token"):
        await worker_run(options_parse(options))


def test_the_exit_status_and_the_log_tell_what_is_wrong(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    restored_logging: None,
) -> None:
    monkeypatch.setattr(sys, "argv", ["worker", *options_make(tmp_path, tmp_path, "http://127.0.0.1:1")])
    for _ in range(2):  # the second time shows that the journal was let go of
        assert main() == 78
        line = json.loads(capsys.readouterr().err.splitlines()[-1])
        assert (line["event"], line["exit_status"]) == ("startup_failed", 78)
        assert "is no release" in line["problem"]


@pytest.mark.parametrize("wrong", ["--pages=0", "--threads=x", "--weights=int3", "--device=tpu"])
def test_wrong_options_are_named_at_once(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options_parse([*options_make(Path(), Path(), "http://x"), wrong])
    assert ended.value.code == 2
    assert wrong[2:].split("=", maxsplit=1)[0] in capsys.readouterr().err


async def test_a_worker_told_to_stop_while_it_waits_for_its_token_exits_cleanly(
    tiny_dir: Path, tmp_path: Path, utility: Any
) -> None:
    options = options_parse(options_make(tmp_path, tiny_dir, utility.url))
    running = asyncio.create_task(worker_run(options))
    journal_lock = tmp_path / "state" / "journal" / "lock"
    while not journal_lock.exists():
        await asyncio.sleep(0.01)
        assert not running.done()
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0
    Journal(options.journal_dir, key_load(options.key_file)).close()


def test_a_worker_whose_parent_died_before_it_could_follow_ends_too() -> None:
    script = (
        "from inference.worker.lifecycle import parent_death_follow\nparent_death_follow()\nprint('alive')"
    )
    environment = os.environ | {"TOKENWORKS_PARENT_DEATH_SIGNAL": "1", "TOKENWORKS_PARENT_PID": "1"}
    ended = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, b"")


def test_a_worker_follows_its_parent_into_death() -> None:
    child = (
        "import time\nfrom inference.worker.lifecycle import parent_death_follow\n"
        "parent_death_follow()\nprint('ready', flush=True)\ntime.sleep(60)"
    )
    parent = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
        "line = child.stdout.readline().decode().strip()\n"
        "print(line, child.pid, flush=True)\nsys.stdin.read()"
    )
    environment = os.environ | {"TOKENWORKS_PARENT_DEATH_SIGNAL": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        state, pid = process.stdout.readline().split()
        assert state == b"ready"
        watched = os.pidfd_open(int(pid))
        process.kill()
        process.wait()
        assert _dies(watched)


def _dies(descriptor: int) -> bool:
    readable, _, _ = select.select([descriptor], [], [], 20)
    os.close(descriptor)
    return bool(readable)
