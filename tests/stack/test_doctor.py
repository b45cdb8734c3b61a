"""What the doctor says of a machine."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from stack import doctor
from stack.upfile import state_lock


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "constraints.txt").write_text("")
    return tmp_path


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def said(findings: Iterator[doctor.Finding]) -> list[tuple[str, str]]:
    return [(finding.level, finding.text) for finding in findings]


def test_ports_are_judged(root: Path, taken_port: int) -> None:
    env = {
        "TOKENWORKS_GATEWAY_PORT": str(taken_port),
        "TOKENWORKS_CONTROL_PORT": "eighty",
        "TOKENWORKS_METER_PORT": "70000",
        "PORT": "not ours",
    }
    found = dict(zip(sorted(env)[1:], said(doctor.check_ports(root, env)), strict=True))
    assert found["TOKENWORKS_CONTROL_PORT"][0] == "bad"
    assert found["TOKENWORKS_METER_PORT"][0] == "bad"
    level, text = found["TOKENWORKS_GATEWAY_PORT"]
    assert level == "bad"
    assert "another program uses this port" in text


def test_a_full_disk_is_a_problem(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=3_000_000))
    assert said(doctor.check_disk(root, {})) == [
        ("bad", "disk: 0.0 GB free, but 4 GB are needed: free some space")
    ]


def test_a_server_that_does_not_answer_is_a_problem(root: Path, taken_port: int) -> None:
    env = {
        "REDIS_URL": f"redis://:secret@127.0.0.1:{taken_port}/0",
        "DATABASE_URL": "postgresql://x@127.0.0.1:1/x",
    }
    (bad, database), (good, cache) = said(doctor.check_servers(root, env))
    assert (bad, good) == ("bad", "ok")
    assert "127.0.0.1:1" in database
    assert "secret" not in cache


def test_an_unfinished_environment_is_noted(root: Path) -> None:
    assert "not there yet" in said(doctor.check_environment(root, {}))[0][1]
    (root / ".venv" / "bin").mkdir(parents=True)
    assert "its Python is gone" in said(doctor.check_environment(root, {}))[0][1]
    (root / ".venv" / "bin" / "python").touch()
    assert "unfinished" in said(doctor.check_environment(root, {}))[0][1]


def test_a_running_stack_and_an_unclean_end_are_told_apart(root: Path) -> None:
    var = root / "var"
    with state_lock(var):
        assert said(doctor.check_state(root, {})) == [
            ("note", f"the stack is up (supervisor {os.getpid()}); see var/up.json")
        ]
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", str(var)]) as left:
        (var / "up.json").write_text(json.dumps({"pids": {"worker": left.pid}}))
        wait_for_arguments(left.pid)
        texts = [text for _level, text in said(doctor.check_state(root, {}))]
        left.kill()
    assert f"process {left.pid} of an earlier run" in texts[0]
    assert "did not end cleanly" in texts[1]


def wait_for_arguments(pid: int) -> None:
    """The kernel shows a new process before its arguments."""
    deadline = time.monotonic() + 10
    while not Path(f"/proc/{pid}/cmdline").read_bytes():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_runs_without_the_project_installed() -> None:
    script = Path(doctor.__file__)
    env = {"PATH": os.environ["PATH"], "TOKENWORKS_GATEWAY_PORT": "0"}
    result = subprocess.run(
        [sys.executable, "-I", "-S", str(script)], env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1, result.stderr
    assert "TOKENWORKS_GATEWAY_PORT=0: not a port number" in result.stdout
