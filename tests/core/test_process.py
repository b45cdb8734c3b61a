"""A child that asked for it dies with its parent, and one that did not lives on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHILD = """
import time
from core.process import die_with_parent
die_with_parent()
print("up", flush=True)
time.sleep(60)
"""
PARENT = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.read()
"""


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("switch", ["1", ""])
def test_child_follows_its_parent_only_when_told(switch: str) -> None:
    environment = {**os.environ, "TOKENWORKS_PARENT_DEATH_SIGNAL": switch}
    environment.pop("TOKENWORKS_PARENT_PID", None)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdin
    assert parent.stdout
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()
    end = time.monotonic() + (20 if switch else 0.3)
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    survived = alive(pid)
    if survived:
        os.kill(pid, signal.SIGKILL)
    assert survived == (not switch)


def test_a_parent_that_is_gone_already_is_noticed() -> None:
    environment = {
        **os.environ,
        "TOKENWORKS_PARENT_DEATH_SIGNAL": "1",
        "TOKENWORKS_PARENT_PID": str(2**30),
    }
    done = subprocess.run([sys.executable, "-c", CHILD], env=environment, check=False, timeout=30)
    assert done.returncode == -signal.SIGTERM
