"""The live table and the lines above it, written by two threads."""

from __future__ import annotations

import io
import re
import sys
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console

from stack.screen import LiveScreen
from stack.supervised import Row

ROW = Row(name="gateway", state="ready", pid=None, port=1, uptime_s=1.0, restarts=0, last_line="")
_ERASED = re.compile(r"\r\x1b\[2K(?:\x1b\[1A\x1b\[2K)+")


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def written_by_two() -> str:
    output = io.StringIO()
    screen = LiveScreen(Console(file=output, force_terminal=True, width=100))
    start = threading.Barrier(2)

    def tell() -> None:
        start.wait()
        for number in range(5):
            screen.step(f"step {number}")

    with screen:
        teller = threading.Thread(target=tell)
        teller.start()
        start.wait()
        screen.refresh([ROW])
        teller.join()
    return output.getvalue()


@pytest.mark.usefixtures("eager_threads")
def test_every_frame_but_the_last_is_erased_whoever_writes() -> None:
    for _ in range(150):
        output = written_by_two()
        assert output.count("Tokenworks") - len(_ERASED.findall(output)) == 1
