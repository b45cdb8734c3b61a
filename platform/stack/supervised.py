"""A program with its current process and its history."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass

from stack.logfile import LogCollector
from stack.programs import Program

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 10.0
_STABLE_S = 10.0  # after running this long, a crash counts as the first again


@dataclass(frozen=True, slots=True)
class Row:
    """One program as it is now: what the table and up.json show."""

    name: str
    state: str  # waiting | starting | ready | unready | backoff | stopped
    pid: int | None
    port: int
    uptime_s: float
    restarts: int
    last_line: str


class Supervised:
    """State machine of one program; the supervisor serialises its changes."""

    def __init__(self, program: Program, log: LogCollector) -> None:
        self.program = program
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.state = "waiting"
        self.wanted = False
        self.restarts = 0
        self.crashes_in_a_row = 0
        self.was_ready = False
        self.exit_text = ""
        self._began_s = 0.0
        self._retry_at_s = 0.0

    def is_due(self) -> bool:
        """Whether it should be launched now."""
        if self.state == "backoff":
            return time.monotonic() >= self._retry_at_s
        return self.state == "waiting" and self.wanted

    def launch(self) -> None:
        """Start the program; failing to start counts as a crash."""
        self.restarts += self.state == "backoff"
        self.state, self._began_s = "starting", time.monotonic()
        writer = self.log.open_pipe()
        try:
            self.process = self.program.launch(writer)
        except (OSError, RuntimeError) as error:
            self._plan_retry(f"could not be started: {error}")
        finally:
            os.close(writer)

    def collect_exit(self) -> bool:
        """Notice that the process ended by itself and plan the next attempt; whether it did."""
        status = self.process.poll() if self.process is not None else None
        if status is None:
            return False
        self._plan_retry(
            f"exited with status {status}" if status >= 0 else f"ended by {signal_name(-status)}"
        )
        return True

    def note_probe(self, *, ready: bool) -> None:
        """Take in what the readiness probe saw."""
        if ready:
            self.state, self.was_ready = "ready", True
            self.log.forget_error()
        elif self.state == "ready":
            self.state = "unready"

    def ask_to_stop(self) -> None:
        """Send the stop signal."""
        if self.process is not None:
            self.process.send_signal(self.program.stop_signal)

    def ensure_stopped(self) -> None:
        """Wait out the deadline, then insist."""
        if self.process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(self.program.stop_deadline_s)
            self.process.kill()
            self.process.wait()
        self.process, self.state, self.wanted = None, "stopped", False

    def row(self) -> Row:
        """What to show."""
        process = self.process
        return Row(
            name=self.program.name,
            state=self.state,
            pid=process.pid if process is not None else None,
            port=self.program.port,
            uptime_s=time.monotonic() - self._began_s if process is not None else 0.0,
            restarts=self.restarts,
            last_line=self.exit_text if self.state == "backoff" else self.log.last_line(),
        )

    def _plan_retry(self, why: str) -> None:
        ran_s = time.monotonic() - self._began_s
        self.crashes_in_a_row = 1 if ran_s > _STABLE_S else self.crashes_in_a_row + 1
        delay_s = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** (self.crashes_in_a_row - 1))
        self.process, self.state, self.exit_text = None, "backoff", why
        self._retry_at_s = time.monotonic() + delay_s


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9, and so on."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
