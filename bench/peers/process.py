"""A side that runs in a process of its own, seen from the bench."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from bench.peers.memory import peak_bytes
from bench.peers.work import Work, line_of

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 240.0


class SideError(RuntimeError):
    """A side did not start, died or took too long; the message says where its log is."""


class ProcessSide:
    """Starts `python -m module arguments` with the repository on its path and waits until it is loaded.

    `python` is the interpreter of the side's environment, `log` takes what it prints. A start of more than
    `START_LIMIT_S` seconds, or a work of more than `limit_s`, ends it with a `SideError`.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        log: Path,
        threads: int,
        limit_s: float = START_LIMIT_S,
        python: Path = Path(sys.executable),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log
        self._limit_s = limit_s
        log.parent.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        paths = (str(ROOT), str(ROOT / "kernels"))
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [str(python), "-m", module, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(paths),
                    "OMP_NUM_THREADS": str(threads),
                    **(environment or {}),
                },
            )
        self._works, self._answers = _pipes(self._process)
        try:
            ready = self._answer(START_LIMIT_S)
        except SideError:
            self.close()
            raise
        self.start_s = time.perf_counter() - began
        self.load_s = ready.pop("ready")
        self.facts: Mapping[str, float] = ready

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def rate(self, work: Work) -> float:
        """Tokens per second."""
        try:
            self._works.write(line_of(work))
            self._works.flush()
        except BrokenPipeError as error:
            raise SideError(f"it has ended; see {self._log}") from error
        return self._answer(self._limit_s)["rate"]

    @property
    def peak_bytes(self) -> int:
        """Peak of resident memory so far."""
        return peak_bytes(self._process.pid)

    def close(self) -> None:
        """End it; politely first."""
        with suppress(BrokenPipeError):
            self._works.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()

    def _answer(self, limit_s: float) -> dict[str, float]:
        """The next line; there is never more than one that nobody has asked for."""
        if not select.select([self._answers], [], [], limit_s)[0]:
            self._process.kill()
            self._process.wait()
            raise SideError(f"no answer within {limit_s:.0f} s; see {self._log}")
        line = self._answers.readline()
        if not line:
            raise SideError(f"it has ended; see {self._log}")
        answer: dict[str, float] = json.loads(line)
        return answer


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    """Its input and output, which were asked for."""
    if process.stdin is None or process.stdout is None:
        raise SideError("it has no pipes")
    return process.stdin, process.stdout
