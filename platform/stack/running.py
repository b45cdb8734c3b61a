"""Run the whole stack from Python: for end-to-end tests, benches and scripts.

::

    with Stack(folder) as stack:
        client = OpenAI(base_url=stack.base_url, api_key=stack.api_key)
        stack.kill("worker-huawei", signal.SIGKILL)
        stack.wait_ready("worker-huawei")

The stack is the same ``python -m stack.up`` a user starts, as a child that dies with this process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stack.clean import folder_remove
from stack.layout import ROOT, base_environment
from stack.spawn import spawn, stop_process
from stack.upfile import up_read

_UP_WITHIN_S = 180.0
_READY_WITHIN_S = 60.0
_STOP_WITHIN_S = 90.0
_POLL_S = 0.05


class StackError(RuntimeError):
    """The stack did not come up, or a process did not come back; ends with what the supervisor said."""


class Stack:
    """A running utility in ``state_dir``, on free ports. ``env`` adds to its environment."""

    def __init__(
        self,
        state_dir: Path,
        *,
        model_dir: Path | None = None,
        env: Mapping[str, str] | None = None,
        arguments: Sequence[str] = ("--no-demo",),
    ) -> None:
        self.state_dir = state_dir
        self._env = {**base_environment(), **(env or {})}
        self._arguments = [*arguments, *(["--model-dir", str(model_dir)] if model_dir else [])]
        self._process: subprocess.Popen[bytes] | None = None
        self._killed: dict[str, int] = {}

    def start(self) -> Self:
        """Start everything and wait until it serves. Raises StackError with the reason when it does not."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "stack.up", "--state-dir", str(self.state_dir), *self._arguments]
        with self.output_path.open("wb") as output:
            self._process = spawn(
                command, env=self._env, cwd=ROOT, output=output.fileno(), death_signal=signal.SIGTERM
            )
        self._wait(self._is_up, "the stack is not up", _UP_WITHIN_S)
        return self

    def stop(self) -> int:
        """Stop everything cleanly; the supervisor's exit status."""
        if self._process is None:
            return 0
        return stop_process(self._process, by=signal.SIGTERM, deadline_s=_STOP_WITHIN_S)

    def remove(self) -> None:
        """Stop, and delete everything the stack stored, also what lies outside of ``state_dir``."""
        self.stop()
        folder_remove(self.state_dir)

    @property
    def is_running(self) -> bool:
        """Whether the supervisor runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def output_path(self) -> Path:
        """What the supervisor printed."""
        return self.state_dir / "supervisor.log"

    @property
    def supervisor_pid(self) -> int:
        """The supervisor's own process id."""
        if self._process is None:
            raise StackError("the stack was not started")
        return self._process.pid

    def facts(self) -> dict[str, Any]:
        """The content of up.json now; empty before the start and after the stop."""
        return up_read(self.state_dir)

    @property
    def base_url(self) -> str:
        """What OpenAI clients are given: ``http://127.0.0.1:PORT/v1``."""
        return self._text("base_url")

    @property
    def gateway_url(self) -> str:
        """Base URL of the gateway."""
        return self._text("gateway_url")

    @property
    def control_url(self) -> str:
        """Base URL of control API and console."""
        return self._text("control_url")

    @property
    def api_key(self) -> str:
        """The demo tenant's API key."""
        return self._text("api_key")

    @property
    def model(self) -> str:
        """The model's name for clients."""
        return self._text("model")

    @property
    def redis_url(self) -> str:
        """URL of the stack's Redis."""
        return self._text("redis_url")

    @property
    def database_urls(self) -> dict[str, str]:
        """``DATABASE_URL`` (owner), ``DATABASE_APP_URL`` and ``DATABASE_SYSTEM_URL``."""
        urls: dict[str, str] = self.facts()["database_urls"]
        return urls

    def pids(self) -> dict[str, int]:
        """Process ids by name of everything that runs now."""
        pids: dict[str, int] = self.facts().get("pids", {})
        return pids

    def workers(self) -> list[str]:
        """Names of the workers."""
        return [name for name in self.facts()["processes"] if name.startswith("worker-")]

    def kill(self, name: str, sig: signal.Signals = signal.SIGKILL) -> int:
        """Send ``sig`` to a process; ``wait_ready`` then waits for its successor. The pid it had."""
        pid = self.pids()[name]
        os.kill(pid, sig)
        self._killed[name] = pid
        return pid

    def wait_ready(self, name: str, *, deadline_s: float = _READY_WITHIN_S) -> int:
        """Wait until a process is ready: after ``kill``, a new one. Its pid. Raises StackError."""
        self._wait(lambda: self._is_ready(name), f"{name} is not ready", deadline_s)
        self._killed.pop(name, None)
        return self.pids()[name]

    def _is_up(self) -> bool:
        facts = self.facts()  # perhaps still those of a supervisor that was killed
        return facts.get("state") == "ready" and facts.get("supervisor_pid") == self.supervisor_pid

    def _is_ready(self, name: str) -> bool:
        process = self.facts().get("processes", {}).get(name, {})
        return bool(process.get("state") == "ready" and process.get("pid") != self._killed.get(name))

    def _wait(self, condition: Callable[[], bool], problem: str, deadline_s: float) -> None:
        limit = time.monotonic() + deadline_s
        while not condition():
            status = self._process.poll() if self._process else None
            if status is not None:
                raise StackError(f"{problem}: the supervisor ended with status {status}.\n{self._said()}")
            if time.monotonic() > limit:
                raise StackError(f"{problem} after {deadline_s:.0f} s.\n{self._said()}")
            time.sleep(_POLL_S)

    def _said(self) -> str:
        return "\n".join(self.output_path.read_text(errors="replace").splitlines()[-30:])

    def _text(self, name: str) -> str:
        return str(self.facts()[name])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
