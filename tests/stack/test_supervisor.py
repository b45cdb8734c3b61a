"""The supervisor on small real processes: restart, back-off, giving up, ordered stop, nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from stack.logfile import LogCollector, summarise
from stack.ports import free_port
from stack.procstat import is_running
from stack.programs import Program, python_program
from stack.supervisor import StartError, Supervisor

_SERVER = """
import http.server, signal, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *args): pass
def leave(*_):
    with open(sys.argv[2], "a") as order: order.write(sys.argv[3] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print('{"level": "error", "event": "hello", "error": "from ' + sys.argv[3] + '"}', flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def server(name: str, folder: Path, *, stage: int = 0, code: str = _SERVER) -> Program:
    port = free_port()
    arguments = ["-c", code, str(port), str(folder / "order"), name]
    return python_program(
        name, arguments, port=port, stage=stage, env={"PATH": os.defpath}, cwd=folder, stop_deadline_s=5
    )


@contextmanager
def supervised(folder: Path, *programs: Program) -> Iterator[Supervisor]:
    """Run ``programs``, ticking on this thread whenever the test waits through ``until``."""
    supervisor = Supervisor(programs, folder / "log")
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()


def until(supervisor: Supervisor, condition: Callable[[], bool], deadline_s: float = 20.0) -> None:
    limit = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < limit, supervisor.rows()
        supervisor.tick()
        time.sleep(0.01)


def ready(supervisor: Supervisor) -> bool:
    return all(row.state == "ready" for row in supervisor.rows())


def test_a_killed_program_comes_back_on_its_port(tmp_path: Path) -> None:
    program = server("one", tmp_path)
    with supervised(tmp_path, program) as supervisor:
        until(supervisor, lambda: ready(supervisor))
        first = supervisor.rows()[0]
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        until(supervisor, lambda: supervisor.rows()[0].pid not in (None, first.pid) and ready(supervisor))
        second = supervisor.rows()[0]
    assert (second.port, second.restarts) == (first.port, 1)
    assert first.restarts == 0


def test_a_program_that_never_works_is_reported_with_its_log(tmp_path: Path) -> None:
    broken = server("broken", tmp_path, code="raise SystemExit('no model there')")
    failures: list[str] = []

    def wait() -> None:
        try:
            supervisor.wait_ready("broken", deadline_s=30)
        except StartError as error:
            failures.append(str(error))

    with supervised(tmp_path, broken) as supervisor:
        waiter = threading.Thread(target=wait)
        waiter.start()
        until(supervisor, lambda: bool(failures))
        waiter.join()
    assert "broken crashed 3 times in a row: exited with status 1" in failures[0]
    assert "no model there" in failures[0]


def test_each_further_crash_waits_longer(tmp_path: Path) -> None:
    code = "import sys, time; open(sys.argv[2] + '.starts', 'a').write(f'{time.monotonic()}\\n'); sys.exit(3)"
    starts = tmp_path / "order.starts"
    with supervised(tmp_path, server("flapping", tmp_path, code=code)) as supervisor:
        until(supervisor, lambda: starts.exists() and len(starts.read_text().split()) >= 4)
    times = [float(line) for line in starts.read_text().split()]
    gaps = [after - before for before, after in pairwise(times)]
    for gap, least_s in zip(gaps, (0.1, 0.2, 0.4), strict=False):
        assert gap >= least_s


def test_a_missing_program_is_a_crash_not_an_exception(tmp_path: Path) -> None:
    def launch(_output: int) -> subprocess.Popen[bytes]:
        raise FileNotFoundError("no such program")

    absent = Program(name="absent", port=1, stage=0, launch=launch, is_ready=lambda: False)
    with supervised(tmp_path, absent) as supervisor:
        until(supervisor, lambda: supervisor.rows()[0].restarts >= 1)
        until(supervisor, lambda: "no such program" in supervisor.rows()[0].last_line)


def test_stages_stop_in_order_and_the_stubborn_are_ended(tmp_path: Path) -> None:
    stubborn_code = _SERVER.replace("SIGTERM, leave", "SIGTERM, signal.SIG_IGN")
    port = free_port()
    stubborn = python_program(
        "stubborn",
        ["-c", stubborn_code, str(port), str(tmp_path / "order"), "stubborn"],
        port=port,
        stage=2,
        env={"PATH": os.defpath},
        cwd=tmp_path,
        stop_deadline_s=0.2,
    )
    programs = [server("last", tmp_path, stage=3), server("first", tmp_path, stage=1), stubborn]
    with supervised(tmp_path, *programs) as supervisor:
        until(supervisor, lambda: ready(supervisor))
        pids = [row.pid for row in supervisor.rows()]
    assert (tmp_path / "order").read_text().split() == ["first", "last"]
    for pid in pids:
        assert pid is not None
        assert not is_running(pid)


def test_output_is_kept_and_summarised(tmp_path: Path) -> None:
    with supervised(tmp_path, server("talker", tmp_path)) as supervisor:
        until(supervisor, (tmp_path / "log" / "talker.log").exists)
        until(supervisor, lambda: "hello" in (tmp_path / "log" / "talker.log").read_text())
        assert "from talker" in supervisor.tail("talker")


_PARENT = """
import sys, time
from pathlib import Path
from stack.programs import python_program
from stack.supervisor import Supervisor
code = "import time; time.sleep(60)"
programs = [python_program(n, ["-c", code], port=1, stage=0, env={}, cwd=Path("/")) for n in ("a", "b")]
supervisor = Supervisor(programs, Path(sys.argv[1]))
supervisor.start()
supervisor.tick()
print(*(row.pid for row in supervisor.rows()), flush=True)
time.sleep(60)
"""


def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        time.sleep(0.3)  # let the children pass from the shim into their program
        parent.kill()
    limit = time.monotonic() + 10
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < limit
        time.sleep(0.02)
    assert len(pids) == 2


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"level": "error", "event": "boom", "error": "disk full"}', ("error", "boom: disk full")),
        ('{"level": "info", "event": "served"}', ("info", "served")),
        ("2026 FATAL:  no room", ("fatal", "2026 FATAL:  no room")),
        ("{not json", ("", "{not json")),
    ],
)
def test_lines_are_summarised(line: str, expected: tuple[str, str]) -> None:
    assert summarise(line) == expected


def test_logs_rotate_by_size(tmp_path: Path) -> None:
    log = LogCollector(tmp_path / "x.log", max_bytes=200)
    with os.fdopen(log.open_pipe(), "wb") as pipe:
        for number in range(30):
            pipe.write(b"line %03d of the log\n" % number)
    limit = time.monotonic() + 10
    while "029" not in "".join(log.tail(1)):
        assert time.monotonic() < limit
        time.sleep(0.01)
    assert (tmp_path / "x.log").stat().st_size <= 200
    assert (tmp_path / "x.log.1").stat().st_size <= 200
    assert (tmp_path / "x.log").read_text().endswith("line 029 of the log\n")
