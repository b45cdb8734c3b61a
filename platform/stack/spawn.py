"""Start a real process: no shell, its own session, an exact environment, gone when its parent is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from stack.accounts import ServiceAccount

_SHIM = Path(__file__).with_name("exec_shim.py")


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path | None = None,
    output: int = subprocess.DEVNULL,
    errors: int | None = None,
    death_signal: signal.Signals = signal.SIGKILL,
    account: ServiceAccount | None = None,
) -> subprocess.Popen[bytes]:
    """Start ``argv`` with stdout to ``output`` and stderr there or to ``errors``; the pid is its own.

    Call it from a thread that lives as long as the process should: the kernel ties the parent-death
    signal to the calling thread, not to its process.
    """
    uid, gid = (account.uid, account.gid) if account else (-1, -1)
    shim = [
        sys.executable,
        "-I",
        "-S",
        str(_SHIM),
        str(os.getpid()),
        str(int(death_signal)),
        str(uid),
        str(gid),
    ]
    return subprocess.Popen(
        [*shim, *argv],
        env=dict(env),
        cwd=cwd or "/",
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output if errors is None else errors,
        start_new_session=True,
    )


def run_as(
    argv: Sequence[str], *, env: Mapping[str, str], account: ServiceAccount | None
) -> subprocess.CompletedProcess[str]:
    """Run ``argv`` to its end as ``account`` and take what it says; it ends with us, however we end."""
    with tempfile.TemporaryFile() as output:
        status = spawn(argv, env=env, output=output.fileno(), account=account).wait()
        output.seek(0)
        said = output.read().decode(errors="replace")
    return subprocess.CompletedProcess(list(argv), status, stdout=said)


def stop_process(process: subprocess.Popen[bytes], *, by: signal.Signals, deadline_s: float) -> int:
    """Ask with ``by``, insist with SIGKILL after ``deadline_s``; the exit status."""
    if process.poll() is None:
        process.send_signal(by)
        try:
            process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()
