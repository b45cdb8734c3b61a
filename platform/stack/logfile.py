"""Collect a process's output: a file that rotates by size, and the last lines at hand."""

from __future__ import annotations

import json
import os
import threading
from collections import deque
from pathlib import Path

MAX_BYTES = 10_000_000
_KEPT_LINES = 60
_ERROR_LEVELS = frozenset({"error", "critical", "fatal"})


class LogCollector:
    """Reads pipes on threads of its own and appends to ``path``; one older file is kept as ``path.1``."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._last_error = ""
        path.parent.mkdir(parents=True, exist_ok=True)

    def open_pipe(self) -> int:
        """A descriptor for a child's output; close it here once the child has it."""
        reader, writer = os.pipe()
        name = f"log-{self.path.stem}"
        threading.Thread(target=self._collect, args=(reader,), name=name, daemon=True).start()
        return writer

    def last_line(self) -> str:
        """The newest line, or the newest error when there was one, told briefly."""
        with self._lock:
            return self._last_error or (summarise(self._lines[-1])[1] if self._lines else "")

    def tail(self, count: int = 15) -> list[str]:
        """The newest lines."""
        with self._lock:
            return list(self._lines)[-count:]

    def forget_error(self) -> None:
        """Called when the process works again: an old error is no longer news."""
        with self._lock:
            self._last_error = ""

    def _collect(self, reader: int) -> None:
        with os.fdopen(reader, "rb") as pipe:
            for raw in pipe:
                self._write(raw)

    def _write(self, raw: bytes) -> None:
        line = raw.decode(errors="replace").rstrip("\n")
        level, text = summarise(line)
        with self._lock:
            if line.strip():
                self._lines.append(line)
            if level in _ERROR_LEVELS:
                self._last_error = text
            if self.path.exists() and self.path.stat().st_size + len(raw) > self._max_bytes:
                self.path.replace(self.path.with_name(self.path.name + ".1"))
            with self.path.open("ab") as file:
                file.write(raw)


def summarise(line: str) -> tuple[str, str]:
    """Level and message of a line, JSON or plain; the level is lower case, empty when unknown."""
    if line.startswith("{"):
        try:
            record = json.loads(line)
        except ValueError:
            return "", line
        level = str(record.get("level", "")).lower()
        message = str(record.get("event") or record.get("message") or line)
        detail = record.get("error") or record.get("reason")
        return level, f"{message}: {detail}" if detail else message
    for level in ("FATAL", "ERROR", "CRITICAL"):
        if f"{level}:" in line:
            return level.lower(), line
    return "", line
