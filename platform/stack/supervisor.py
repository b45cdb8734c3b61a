"""Keep programs running: start, watch, restart with back-off, stop in order.

Only the thread that calls ``tick`` starts processes, because the kernel ties a child's parent-death signal to
the thread that made it. Other threads ask (``start``), wait (``wait_ready``) and look (``rows``).
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from stack.logfile import LogCollector
from stack.programs import Program
from stack.supervised import Row, Supervised

_PROBE_STARTING_S = 0.1
_PROBE_READY_S = 1.0
_GIVE_UP_AFTER = 3  # crashes in a row before it was ever ready


class StartError(RuntimeError):
    """A program did not become ready; the message names it and ends with its last log lines."""


class Supervisor:
    """Runs ``programs``, each with its log ``<log_dir>/<name>.log``."""

    def __init__(self, programs: Sequence[Program], log_dir: Path) -> None:
        self._all = {
            each.name: Supervised(each, LogCollector(log_dir / f"{each.name}.log")) for each in programs
        }
        self._changed = threading.Condition()
        self._stopping = threading.Event()

    def start(self, *names: str) -> None:
        """Ask for programs to run from the next tick on; all of them when none is named."""
        for name in names or self._all:
            self._all[name].wanted = True

    def tick(self) -> None:
        """One look at everything: collect exits, start what is due. Call it often, from one thread."""
        for each in self._all.values():
            with self._changed:
                if each.collect_exit():
                    self._changed.notify_all()
            if each.is_due():
                self._launch(each)

    def bounce(self, name: str) -> None:
        """Ask a running program to end; it is then started again like any that ended by itself."""
        with self._changed:
            self._all[name].ask_to_stop()

    def rows(self) -> list[Row]:
        """Every program as it is now, in order."""
        return [each.row() for each in self._all.values()]

    def wait_ready(self, *names: str, deadline_s: float) -> None:
        """Block until all are ready. Raises StartError when one cannot start, is late, or we are stopping."""
        limit = time.monotonic() + deadline_s
        with self._changed:
            while not all(self._all[name].state == "ready" for name in names):
                for name in names:
                    self._raise_if_hopeless(self._all[name], late=time.monotonic() > limit)
                self._changed.wait(0.2)

    def abandon(self) -> None:
        """Let waiting threads end: we are about to stop."""
        self._stopping.set()
        with self._changed:
            self._changed.notify_all()

    def stop(self) -> None:
        """Stop everything, stage by stage, each with its deadline. Idempotent."""
        self.abandon()
        for stage in sorted({each.program.stage for each in self._all.values()}):
            members = [each for each in self._all.values() if each.program.stage == stage]
            for each in members:
                each.ask_to_stop()
            for each in members:
                each.ensure_stopped()

    def kill(self) -> None:
        """End everything at once, as when the user insists."""
        self.abandon()
        for each in self._all.values():
            if each.process is not None:
                each.process.kill()

    def tail(self, name: str) -> str:
        """The end of a program's log, with its path, for messages."""
        log = self._all[name].log
        lines = "\n".join(f"    {line}" for line in log.tail())
        return f"The end of {log.path}:\n{lines or '    (empty)'}"

    def _launch(self, each: Supervised) -> None:
        with self._changed:
            each.launch()
            self._changed.notify_all()
        if each.process is not None:
            name = f"probe-{each.program.name}"
            threading.Thread(target=self._probe, args=(each, each.process), name=name, daemon=True).start()

    def _probe(self, each: Supervised, process: subprocess.Popen[bytes]) -> None:
        """Follow the readiness of one process until it is replaced."""
        while not self._stopping.is_set():
            ready = each.program.is_ready()
            with self._changed:
                if each.process is not process:
                    return
                each.note_probe(ready=ready)
                self._changed.notify_all()
            time.sleep(_PROBE_READY_S if ready else _PROBE_STARTING_S)

    def _raise_if_hopeless(self, each: Supervised, *, late: bool) -> None:
        name = each.program.name
        if self._stopping.is_set():
            raise StartError("stopped before everything was ready")
        if each.state == "ready":
            return
        if not each.was_ready and each.crashes_in_a_row >= _GIVE_UP_AFTER:
            crashes = each.crashes_in_a_row
            raise StartError(f"{name} crashed {crashes} times in a row: {each.exit_text}. {self.tail(name)}")
        if late:
            raise StartError(f"{name} did not become ready in time. {self.tail(name)}")
