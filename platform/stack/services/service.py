"""What both embedded servers share: one process, its log, start, clean stop, kill."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from stack.accounts import service_account, service_home
from stack.files import secret_load
from stack.ports import free_port
from stack.spawn import spawn, stop_process

START_DEADLINE_S = 60.0
_POLL_S = 0.01


class ServiceError(RuntimeError):
    """A server did not start; the message ends with the last lines of its log."""


class Service(ABC):
    """One server process with everything it owns in ``folder``; usable as a context manager.

    ``folder/home`` belongs to the account the server runs as; password and log beside it belong to us.
    """

    name: str
    stop_signal: signal.Signals
    death_signal: signal.Signals

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.account = service_account(folder / "home")
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def password(self) -> str:
        """The administrator's password, made on first use and kept with mode 0600."""
        return secret_load(self.folder / "password")

    @property
    def log_path(self) -> Path:
        """What the server said, this start and earlier ones."""
        return self.folder / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def prepare(self) -> None:
        """Create or repair what must be on disk before the server starts. Idempotent."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o711)
        self.home = service_home(self.folder / "home", self.account)

    @abstractmethod
    def command(self) -> list[str]:
        """The server's argument list; ``prepare`` has run."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether the server accepts an authenticated command."""

    def environment(self) -> dict[str, str]:
        """The server's whole environment: nothing of ours leaks into it."""
        return {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": str(self.home)}

    def launch(self, output: int) -> subprocess.Popen[bytes]:
        """Start the process, writing to descriptor ``output``, without waiting for it to answer."""
        self.prepare()
        self.process = spawn(
            self.command(),
            env=self.environment(),
            output=output,
            death_signal=self.death_signal,
            account=self.account,
        )
        return self.process

    def start(self) -> Self:
        """Start the server and wait until it answers. Raises ServiceError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            process = self.launch(log.fileno())
        deadline = time.monotonic() + START_DEADLINE_S
        while not self.answers():
            if process.poll() is not None:
                raise ServiceError(f"{self.name} exited with status {process.returncode}\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServiceError(
                    f"{self.name} did not answer in {START_DEADLINE_S:.0f} s\n{self.log_tail()}"
                )
            time.sleep(_POLL_S)
        return self

    def stop(self, deadline_s: float = 20.0) -> None:
        """Clean shutdown; SIGKILL after ``deadline_s``. Does nothing when it is not running."""
        if self.process is not None:
            stop_process(self.process, by=self.stop_signal, deadline_s=deadline_s)

    def kill(self) -> None:
        """End the server as a power cut would."""
        if self.process is not None:
            stop_process(self.process, by=signal.SIGKILL, deadline_s=5.0)

    def remove(self) -> None:
        """Stop, and delete the folder with everything the server stored."""
        self.stop()
        home = self.folder / "home"
        if home.is_symlink():
            shutil.rmtree(home.resolve(), ignore_errors=True)
        shutil.rmtree(self.folder)

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of the log."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
