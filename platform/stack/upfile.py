"""``up.json`` (mode 0600): what scripts need to know while the stack is up, and its lock."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stack.files import write_private


class AlreadyRunningError(RuntimeError):
    """Another supervisor holds the state folder."""


@contextmanager
def state_lock(state_dir: Path) -> Iterator[None]:
    """Hold ``state_dir`` for this process; the kernel lets go of it however the process ends."""
    state_dir.mkdir(parents=True, exist_ok=True)
    with (state_dir / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            raise AlreadyRunningError(
                f"the stack is already up on {state_dir} (process {holder}); "
                f"see {state_dir / 'up.json'}, or stop it with Ctrl-C in its terminal"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


class UpFile:
    """The file; it is written only when its content changes."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "up.json"
        self._facts: dict[str, Any] = {}
        self._written = ""

    def set(self, **facts: Any) -> None:
        """Add or replace facts and write the file."""
        self._facts.update(facts)
        text = json.dumps(self._facts, indent=2) + "\n"
        if text != self._written:
            write_private(self.path, text)
            self._written = text

    def remove(self) -> None:
        """The stack is down: nobody shall read an old address."""
        self.path.unlink(missing_ok=True)


def up_read(state_dir: Path) -> dict[str, Any]:
    """The facts, or an empty dict while there are none."""
    try:
        facts: dict[str, Any] = json.loads((state_dir / "up.json").read_text())
    except FileNotFoundError:
        return {}
    return facts
