"""What the supervisor runs: how each program is launched, when it is ready, how it is stopped."""

from __future__ import annotations

import contextlib
import http.client
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stack.ports import LOOPBACK
from stack.services.service import Service
from stack.spawn import spawn

_PROBE_TIMEOUT_S = 2.0


@dataclass(frozen=True)
class Program:
    """One supervised process. ``stage`` orders the stop: lower stages stop first, together."""

    name: str
    port: int
    stage: int
    launch: Callable[[int], subprocess.Popen[bytes]]  # given the descriptor for its output
    is_ready: Callable[[], bool]
    stop_signal: signal.Signals = signal.SIGTERM
    stop_deadline_s: float = 10.0
    url: str = ""


def http_is_ready(port: int, path: str = "/readyz") -> bool:
    """Whether GET ``path`` on loopback answers 200. Never goes through a proxy."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_PROBE_TIMEOUT_S)
    with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().status == 200
    return False


def python_program(
    name: str,
    arguments: Sequence[str],
    *,
    port: int,
    stage: int,
    env: Mapping[str, str],
    cwd: Path,
    stop_deadline_s: float = 10.0,
) -> Program:
    """A process of this project that answers /readyz on ``port``."""

    def launch(output: int) -> subprocess.Popen[bytes]:
        return spawn([sys.executable, *arguments], env=env, cwd=cwd, output=output)

    return Program(
        name=name,
        port=port,
        stage=stage,
        launch=launch,
        is_ready=lambda: http_is_ready(port),
        stop_deadline_s=stop_deadline_s,
        url=f"http://{LOOPBACK}:{port}",
    )


def service_program(service: Service, *, stage: int) -> Program:
    """An embedded server under the supervisor."""
    return Program(
        name=service.name,
        port=service.port,
        stage=stage,
        launch=service.launch,
        is_ready=service.answers,
        stop_signal=service.stop_signal,
        stop_deadline_s=20.0,
    )
