"""Draw what `make up` shows in a terminal, from a real run: ``python docs/images/table.py``."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

from stack.layout import ROOT, base_environment
from stack.upfile import up_read

HERE = Path(__file__).resolve().parent
COLUMNS, LINES = 132, 80
_UP_WITHIN_S, _WATCH_S = 120.0, 4.0
# what rich's live display uses: line feed, carriage return, erase line, cursor up, other control sequences
_PIECE = re.compile(r"\n|\r|\x1b\[2K|\x1b\[(\d*)A|\x1b\[\?\d+[hl]|[^\n\r\x1b]+|\x1b\[[0-9;]*m|\x1b.")


def screen_lines(output: str) -> list[str]:
    """The lines a terminal would show after ``output``, colours kept."""
    lines, row = [""], 0
    for piece in _PIECE.finditer(output):
        text = piece[0]
        if text == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif piece[1] is not None:
            row = max(0, row - int(piece[1] or 1))
        elif text in ("\x1b[2K", "\r"):
            lines[row] = "" if text == "\x1b[2K" else lines[row]
        elif text.endswith("m") or not text.startswith("\x1b"):
            lines[row] += text
    return lines


def run_recorded(state_dir: Path) -> str:
    """Everything ``stack.up`` writes to a terminal until it is up, and a few seconds more."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    process = subprocess.Popen(
        [sys.executable, "-m", "stack.up", "--state-dir", str(state_dir)],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        cwd=ROOT,
        env={**base_environment(), "TERM": "xterm-256color", "COLORTERM": "truecolor"},
    )
    os.close(follower)
    os.set_blocking(leader, False)
    output, deadline, ready = b"", time.monotonic() + _UP_WITHIN_S, False
    while time.monotonic() < deadline:
        if not ready and up_read(state_dir).get("state") == "ready":
            ready, deadline = True, time.monotonic() + _WATCH_S
        try:
            output += os.read(leader, 1 << 16)
        except BlockingIOError:
            time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    while process.poll() is None:
        try:
            os.read(leader, 1 << 16)
        except OSError:
            time.sleep(0.05)
    return output.decode(errors="replace")


def main() -> None:
    """Write ``up.svg`` beside this file; secrets of the run (already void) are shortened."""
    with tempfile.TemporaryDirectory() as folder:
        lines = screen_lines(run_recorded(Path(folder) / "state"))
    while lines and not Text.from_ansi(lines[-1]).plain.strip():
        lines.pop()
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    for line in lines:
        shown = re.sub(r"(tw-sk-[0-9a-f]{6})[0-9a-f]+", r"\1…", line)
        console.print(Text.from_ansi(shown))
    svg = re.sub(r"@font-face {.*?}\s*", "", console.export_svg(title="make up"), flags=re.DOTALL)
    (HERE / "up.svg").write_text(
        svg.replace("Fira Code, monospace", "monospace")
    )  # fonts of the reader's own


if __name__ == "__main__":
    main()
