"""PostgreSQL 18 on loopback TCP with SCRAM passwords and no Unix socket."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psycopg

from stack.files import write_private
from stack.services.binaries import postgres_bin
from stack.services.service import Service, ServiceError
from stack.spawn import run_as, spawn

SUPERUSER = "postgres"
_FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "autovacuum_naptime=10min")
_ORPHAN_DEADLINE_S = 10.0


class EmbeddedPostgres(Service):
    """A PostgreSQL server. ``durable=False`` trades crash safety of the machine for speed: tests only."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast shutdown": disconnect clients, checkpoint, exit
    death_signal = signal.SIGINT

    def __init__(self, data_dir: Path, port: int | None = None, *, durable: bool = True) -> None:
        super().__init__(data_dir, port)
        self.durable = durable
        self._sync: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """The cluster itself."""
        return self.home / "data"

    def url(self, role: str = SUPERUSER, password: str | None = None, database: str = "postgres") -> str:
        """Connection URL for ``role``; without arguments the superuser's."""
        return f"postgresql://{role}:{password or self.password}@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> None:
        """Initialise the cluster on first use; afterwards clear what a killed server left behind."""
        super().prepare()
        if self.data.exists():
            self._clear_stale_lock()
        else:
            self._initialise()

    def command(self) -> list[str]:
        """``postgres`` with its settings; durable ones are the server's own defaults."""
        settings = [
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            "unix_socket_directories=",
            "max_connections=200",
            "timezone=UTC",
            "log_timezone=UTC",
            *(() if self.durable else _FAST),
        ]
        flags = [part for setting in settings for part in ("-c", setting)]
        return [str(postgres_bin(self.account) / "postgres"), "-D", str(self.data), *flags]

    def stop(self, deadline_s: float = 20.0) -> None:
        """Clean shutdown, after a new cluster has reached the disk."""
        if self._sync is not None:
            self._sync.wait()
        super().stop(deadline_s)

    def answers(self) -> bool:
        """Whether the superuser can log in."""
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.url(), connect_timeout=2).close()
            return True
        return False

    def _initialise(self) -> None:
        """Make the cluster beside its place and move it there complete."""
        partial = self.home / "data.partial"
        shutil.rmtree(partial, ignore_errors=True)  # an interrupted first start
        password_file = self.home / "initial-password"
        write_private(password_file, self.password)
        if self.account is not None:
            os.chown(password_file, self.account.uid, self.account.gid)
        command = [
            str(postgres_bin(self.account) / "initdb"), "--pgdata", str(partial), "--username", SUPERUSER,
            "--auth", "scram-sha-256", "--pwfile", str(password_file), "--encoding", "UTF8",
            "--locale", "C.UTF-8", "--no-sync", *(() if self.durable else ("--wal-segsize", "1")),
        ]  # fmt: skip
        result = run_as(command, env=self.environment(), account=self.account)
        password_file.unlink()
        if result.returncode != 0:
            raise ServiceError(f"initdb failed with status {result.returncode}\n{result.stdout}")
        partial.rename(self.data)
        if self.durable:
            self._sync_in_background()

    def _sync_in_background(self) -> None:
        """Bring the new cluster's thousand files to disk while the server already works: it takes seconds."""
        command = [str(postgres_bin(self.account) / "initdb"), "--pgdata", str(self.data), "--sync-only"]
        self._sync = spawn(command, env=self.environment(), account=self.account)

    def _clear_stale_lock(self) -> None:
        """Deal with ``postmaster.pid`` of a killed server: its number may be another program's now."""
        lock = self.data / "postmaster.pid"
        if not lock.exists():
            return
        pid = int(lock.read_text().split("\n", 1)[0] or 0)
        if pid and self._is_our_server(pid):
            self._end_orphan(pid)
        lock.unlink(missing_ok=True)

    def _is_our_server(self, pid: int) -> bool:
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return os.fsencode(self.data) in arguments

    def _end_orphan(self, pid: int) -> None:
        os.kill(pid, signal.SIGINT)
        deadline = time.monotonic() + _ORPHAN_DEADLINE_S
        while self._is_our_server(pid):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGQUIT)
                deadline += _ORPHAN_DEADLINE_S
            time.sleep(0.02)
