"""One run of the stack: the supervisor on this thread, the start-up beside it, a clean stop at the end."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from types import FrameType

from stack.identities import identities_check
from stack.layout import Layout
from stack.processes import programs_for
from stack.programs import Program
from stack.roles import passwords_load, role_urls
from stack.screen import Screen
from stack.services import EmbeddedPostgres, EmbeddedValkey
from stack.startup import Servers, Startup
from stack.supervisor import Supervisor
from stack.upfile import UpFile

_TICK_S = 0.05
EXIT_FAILED, EXIT_INTERRUPTED = 1, 130


@dataclass(frozen=True)
class Wishes:
    """``once``: stop after the first request. ``demo``: make that request at all."""

    once: bool
    demo: bool


class Run:
    """Owns everything between the first process started and the last one stopped."""

    def __init__(self, layout: Layout, screen: Screen, wishes: Wishes) -> None:
        self._layout = layout
        self._screen = screen
        self._wishes = wishes
        self._signals = 0
        self._up_file = UpFile(layout.state_dir)
        self._servers, programs = _plan(layout)
        self._supervisor = Supervisor(programs, layout.log_dir)

    def execute(self) -> int:
        """Run until the work is done, a signal comes or the start fails. The exit status."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        startup = Startup(
            layout=self._layout,
            servers=self._servers,
            supervisor=self._supervisor,
            screen=self._screen,
            up_file=self._up_file,
            need_tokens=identities_check(self._layout),
            demo=self._wishes.demo,
            stays_up=not self._wishes.once,
        )
        self._up_file.set(state="starting", supervisor_pid=os.getpid(), log_dir=str(self._layout.log_dir))
        startup.start()
        try:
            while not self._is_over(startup):
                self._look()
                time.sleep(_TICK_S)
        finally:
            self._stop(startup)
        return self._verdict(startup)

    def _is_over(self, startup: Startup) -> bool:
        ended = startup.finished.is_set() and (self._wishes.once or startup.failure is not None)
        return ended or self._signals > 0

    def _look(self) -> None:
        self._supervisor.tick()
        rows = self._supervisor.rows()
        self._screen.refresh(rows)
        self._up_file.set(
            pids={row.name: row.pid for row in rows if row.pid is not None},
            processes={
                row.name: {"state": row.state, "pid": row.pid, "port": row.port, "restarts": row.restarts}
                for row in rows
            },
        )

    def _stop(self, startup: Startup) -> None:
        self._screen.step("stopping every process")
        startup.cancelled.set()
        self._supervisor.stop()
        startup.join(5)
        self._up_file.remove()
        self._screen.refresh(self._supervisor.rows())

    def _verdict(self, startup: Startup) -> int:
        finished = startup.finished.is_set() and startup.failure is None
        if self._signals and not finished:
            self._screen.step("interrupted before everything was up")
            return EXIT_INTERRUPTED
        if startup.failure is not None:
            self._screen.step(f"FAILED: {startup.failure}")
            return EXIT_FAILED
        return 0

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:  # the user insists
            self._supervisor.kill()


def _plan(layout: Layout) -> tuple[Servers, list[Program]]:
    """Servers of the user's where the environment names them, embedded ones elsewhere."""
    postgres = valkey = None
    if layout.postgres_url is None:
        postgres = EmbeddedPostgres(layout.state_dir / "postgres", layout.ports["postgres"])
    if layout.redis_url is None:
        valkey = EmbeddedValkey(layout.state_dir / "valkey", layout.ports["valkey"])
    servers = Servers(
        postgres_admin_url=layout.postgres_url or (postgres.url() if postgres else ""),
        redis_url=layout.redis_url or (valkey.url if valkey else ""),
        role_passwords=passwords_load(layout.state_dir / "secrets" / "roles"),
        embedded=tuple(service for service in (postgres, valkey) if service is not None),
    )
    programs = programs_for(
        layout,
        postgres=postgres,
        valkey=valkey,
        redis_url=servers.redis_url,
        roles=role_urls(servers.postgres_admin_url, servers.role_passwords),
    )
    return servers, programs
