"""What the user sees: steps and the streamed answer as they happen, and the state of every process."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from stack.procstat import UsageMeter
from stack.supervised import Row

_COLOURS = {"ready": "green", "starting": "yellow", "backoff": "red", "unready": "red"}
_REFRESH_S = 0.25


class Screen:
    """Plain lines, for pipes and logs."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._began_s = time.monotonic()
        self._states: dict[str, str] = {}

    def step(self, text: str) -> None:
        """One line with the seconds since the start."""
        line = Text(f"[{time.monotonic() - self._began_s:5.1f} s] {text}")
        self.console.print(line, highlight=False, soft_wrap=True)

    def show(self, *parts: RenderableType) -> None:
        """Something that stays on the screen."""
        for part in parts:
            self.console.print(part, soft_wrap=isinstance(part, Text))

    def answer_add(self, delta: str) -> None:
        """The next piece of a streamed answer."""
        self.console.print(Text(delta), end="", soft_wrap=True)

    def answer_end(self) -> None:
        """The answer is complete."""
        self.console.print()

    def refresh(self, rows: Sequence[Row]) -> None:
        """Tell every change of state once."""
        for row in rows:
            before, self._states[row.name] = self._states.get(row.name, "waiting"), row.state
            if row.state not in (before, "waiting"):
                self.step(f"{row.name}: {_tell(row)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


def _tell(row: Row) -> str:
    where = f" (process {row.pid}, port {row.port})" if row.pid is not None else ""
    why = f", {row.last_line}" if row.state == "backoff" else ""
    return f"{row.state}{where}{why}"


class LiveScreen(Screen):
    """A table that is redrawn in place below everything that stays, for terminals."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._usage = UsageMeter()
        # rich may lose or double a frame when two threads write at once: one at a time
        self._lock = threading.RLock()
        self._answer = ""
        self._drawn_s = 0.0
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="visible")

    def step(self, text: str) -> None:
        """A line that stays, above the table."""
        with self._lock:
            super().step(text)

    def show(self, *parts: RenderableType) -> None:
        """Something that stays, above the table."""
        with self._lock:
            super().show(*parts)

    def answer_add(self, delta: str) -> None:
        """Grow the answer above the table."""
        with self._lock:
            self._answer += delta

    def answer_end(self) -> None:
        """Let the answer stay, above the table."""
        with self._lock:
            answer, self._answer = self._answer, ""
            self.console.print(Text(answer), soft_wrap=True)

    def refresh(self, rows: Sequence[Row]) -> None:
        """Redraw a few times a second."""
        now = time.monotonic()
        if now - self._drawn_s < _REFRESH_S:
            return
        self._drawn_s = now
        table = self._table(rows)
        with self._lock:
            answer = self._answer
            self._live.update(Group(Text(answer), table) if answer else table, refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def _table(self, rows: Sequence[Row]) -> Table:
        table = Table(title="Tokenworks", title_justify="left", box=SIMPLE_HEAD, expand=True, pad_edge=False)
        for name in ("process", "state"):
            table.add_column(name, no_wrap=True)
        for name in ("pid", "port", "up", "restarts", "cpu", "memory"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("last line", ratio=1, no_wrap=True, overflow="ellipsis", style="dim")
        for row in rows:
            table.add_row(*self._cells(row))
        return table

    def _cells(self, row: Row) -> tuple[RenderableType, ...]:
        usage = self._usage.read(row.pid)
        cpu = "" if usage is None or usage.cpu_percent is None else f"{usage.cpu_percent:.0f}%"
        memory = "" if usage is None else f"{usage.rss_bytes / 1e6:.0f} MB"
        return (
            row.name,
            Text(row.state, style=_COLOURS.get(row.state, "dim")),
            str(row.pid or ""),
            str(row.port),
            duration_text(row.uptime_s) if row.pid else "",
            str(row.restarts or ""),
            cpu,
            memory,
            Text(row.last_line),
        )


def duration_text(seconds: float) -> str:
    """``8s``, ``3m08s``, ``2h05m``."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def screen_for(console: Console) -> Screen:
    """The live table on a terminal, plain lines elsewhere."""
    return LiveScreen(console) if console.is_terminal else Screen(console)
