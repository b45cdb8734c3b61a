"""Run one command to its end and take its output; the reason is in the error when it fails."""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stack.spawn import spawn


class CommandError(RuntimeError):
    """The command failed; the message ends with what it said last."""


def python_json(
    arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path, cancelled: threading.Event
) -> dict[str, Any]:
    """Run Python with ``arguments``; its stdout is a JSON object, its stderr goes to ``log``.

    Raises CommandError when it fails, prints something else, or ``cancelled`` is set meanwhile.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile() as output, log.open("wb") as errors:
        process = spawn(
            [sys.executable, *arguments],
            env=env,
            cwd=cwd,
            output=output.fileno(),
            errors=errors.fileno(),
        )
        while process.poll() is None and not cancelled.wait(0.02):
            pass
        if process.poll() is None:
            process.kill()
        status = process.wait()
        output.seek(0)
        text = output.read().decode(errors="replace")
    with contextlib.suppress(ValueError):
        if status == 0:
            answer: dict[str, Any] = json.loads(text)
            return answer
    tail = "\n".join(f"    {line}" for line in log.read_text(errors="replace").splitlines()[-15:])
    what = " ".join(Path(part).name for part in arguments[:2])
    raise CommandError(f"{what} ended with status {status}. The end of {log}:\n{tail or text}")
