"""One JSON line a request on stderr, gathered for a moment so that a busy gateway writes rarely.

The same shape as ``core.logs``, at a fifth of its price. Prompts, outputs and secrets never come here.
"""

from __future__ import annotations

import asyncio
import sys

import orjson

from core.clock import clock

_FLUSH_S = 0.2
_LINES_MAX = 256


class RequestLog:
    """Collects lines; ``start`` begins to write them."""

    def __init__(self) -> None:
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Write from now on."""
        self._loop = asyncio.get_running_loop()

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        self._loop = None

    def add(self, *, status: int, **fields: str | int | float | None) -> None:
        """One answered request. ``fields``: request_id, endpoint, worker, counts, times."""
        if self._loop is None:
            return
        level = "info" if status < 500 else "error"
        line = {
            "event": "request",
            "level": level,
            "process": "gateway",
            "timestamp": clock.now().isoformat(),
            "status": status,
            **fields,
        }
        self._lines.append(orjson.dumps(line))
        if len(self._lines) >= _LINES_MAX:
            self._flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(_FLUSH_S, self._flush)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            sys.stderr.buffer.write(b"\n".join(self._lines) + b"\n")
            sys.stderr.buffer.flush()
            self._lines.clear()
