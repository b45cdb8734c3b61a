"""The real stack on a tiny random model: up.json, least privilege, the lock, and a killed supervisor."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack.procstat import is_running
from stack.running import Stack

_CHECKPOINT = """
import sys
from pathlib import Path
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write
random_checkpoint_write(path=Path(sys.argv[1]), config=TINY_V3)
"""
EVERYTHING = {
    "postgres", "valkey", "control", "gateway", "meter", "worker-huawei", "worker-tencent", "worker-alibaba",
}  # fmt: skip


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    # in a process of its own: this one stays free of torch
    subprocess.run([sys.executable, "-c", _CHECKPOINT, str(folder)], check=True)
    return folder


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, model_dir: Path) -> Iterator[Stack]:
    """One stack for the module; its end is a test too."""
    running = Stack(tmp_path_factory.mktemp("var"), model_dir=model_dir, arguments=()).start()
    yield running
    pids = running.pids().values()
    assert len(pids) == len(EVERYTHING)
    assert running.stop() == 0
    assert not [pid for pid in pids if is_running(pid)]
    assert not (running.state_dir / "up.json").exists()
    running.remove()


def environment_of(pid: int) -> dict[str, str]:
    raw = Path(f"/proc/{pid}/environ").read_bytes().decode()
    return dict(line.split("=", 1) for line in raw.split("\0") if "=" in line)


def test_everything_runs_and_the_first_request_was_billed(stack: Stack) -> None:
    assert set(stack.pids()) == EVERYTHING
    assert stat.S_IMODE((stack.state_dir / "up.json").stat().st_mode) == 0o600
    facts = stack.facts()
    assert facts["supervisor_pid"] == stack.supervisor_pid
    assert facts["base_url"] == f"{facts['gateway_url']}/v1"
    assert {"email", "password", "role"} <= set(facts["accounts"][0])
    said = stack.output_path.read_text()
    assert facts["first_request_id"] in said
    assert "both signatures and the bill check out" in said
    assert facts["api_key"] in said.split(), "the key must be printed on one line"


def test_each_process_has_only_the_secrets_it_needs(stack: Stack) -> None:
    pids = stack.pids()
    databases = {"DATABASE_URL", "DATABASE_APP_URL", "DATABASE_SYSTEM_URL"}
    secrets = databases | {"REDIS_URL", "TOKENWORKS_SECRET_KEY", "TOKENWORKS_DISPATCH_SECRET"}
    gateway = environment_of(pids["gateway"])
    assert gateway.keys() & secrets == {"REDIS_URL", "TOKENWORKS_DISPATCH_SECRET"}
    for name in ("control", "meter"):
        assert environment_of(pids[name]).keys() & secrets == secrets - {"DATABASE_URL"}
    for name in stack.workers():
        assert not environment_of(pids[name]).keys() & secrets
    for name in ("postgres", "valkey"):
        assert not environment_of(pids[name]).keys() & secrets


def test_a_second_one_on_the_same_folder_says_so(stack: Stack) -> None:
    command = [sys.executable, "-m", "stack.up", "--state-dir", str(stack.state_dir)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert f"already up on {stack.state_dir} (process {stack.supervisor_pid})" in result.stderr


def test_nothing_outlives_a_killed_supervisor_and_the_next_start_recovers(stack: Stack) -> None:
    pids = set(stack.pids().values())
    os.kill(stack.supervisor_pid, signal.SIGKILL)
    stack.stop()
    limit = time.monotonic() + 30
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < limit, [pid for pid in pids if is_running(pid)]
        time.sleep(0.05)
    stack.start()
    successors = set(stack.pids().values())
    assert len(successors) == len(EVERYTHING)
    assert not successors & pids
