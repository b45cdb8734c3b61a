"""``make doctor``: what is missing or misconfigured on this machine, in plain words. Standard library only.

Exit status 0 when nothing stands in the way, 1 otherwise. Each check returns findings; none changes anything.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import pwd
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # before the project is installed
from stack import setup_env

_GB = 1_000_000_000
_INSTALL_BYTES = 4 * _GB
_RUN_BYTES = 1 * _GB
_MEMORY_BYTES = 3 * _GB
_MARKS = {"ok": "  ok   ", "note": "  note ", "bad": "  BAD  "}


@dataclass(frozen=True)
class Finding:
    """``level`` is ok, note (works, but worth knowing) or bad (stands in the way)."""

    level: str
    text: str


def check_python(root: Path, env: Mapping[str, str]) -> Iterator[Finding]:
    """A Python that can make the environment, or one that is made already."""
    try:
        yield Finding("ok", f"Python: {setup_env.interpreter_find()} is suitable")
    except setup_env.SetupError as error:
        level = "note" if setup_env.is_current(root, dev=False) else "bad"
        yield Finding(level, str(error))


def check_machine(root: Path, env: Mapping[str, str]) -> Iterator[Finding]:
    """A system and processor that the wheels exist for."""
    system, machine = platform.system(), platform.machine()
    known = system in ("Linux", "Darwin") and machine in ("x86_64", "aarch64", "arm64")
    why = (
        ""
        if known
        else ": PostgreSQL, Valkey and torch come as wheels for Linux and macOS on x86-64 and arm64"
    )
    yield Finding("ok" if known else "bad", f"machine: {system} on {machine}{why}")
    if system == "Linux" and platform.libc_ver()[0] != "glibc":
        yield Finding("bad", "machine: the wheels need glibc, which this Linux does not use")


def check_disk(root: Path, env: Mapping[str, str]) -> Iterator[Finding]:
    """Room for the environment and the data."""
    free = shutil.disk_usage(root).free
    needed = _RUN_BYTES if setup_env.is_current(root, dev=False) else _INSTALL_BYTES
    level = "ok" if free >= needed else "bad"
    enough = "" if level == "ok" else f", but {needed / _GB:.0f} GB are needed: free some space"
    yield Finding(level, f"disk: {free / _GB:.1f} GB free{enough}")


def check_writable(root: Path, env: Mapping[str, str]) -> Iterator[Finding]:
    """We may write where environment and state go."""
    for folder in (root, root / "var", root / ".venv"):
        if folder.exists() and not os.access(folder, os.W_OK):
            owner = folder.owner()
            yield Finding("bad", f"folder {folder.name} belongs to {owner} and is not writable for this user")


def check_memory(root: Path, env: Mapping[str, str]) -> Iterator[Finding]:
    """Enough memory for three workers and the rest."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return
    fields = dict(line.split(":", 1) for line in lines)
    available = int(fields["MemAvailable"].split()[0]) * 1024
    level = "ok" if available >= _MEMORY_BYTES else "note"
    advice = "" if level == "ok" else f"; about {_MEMORY_BYTES / _GB:.0f} GB are comfortable"
    yield Finding(level, f"memory: {available / _GB:.1f} GB available{advice}")


def check_environment(root: Path, env: Mapping[str, str]) -> Iterator[Finding]:
    """The virtual environment is complete and current."""
    python = root / ".venv" / "bin" / "python"
    if not (root / ".venv").exists():
        yield Finding("note", ".venv: not there yet; 'make up' creates it (a large download, once)")
    elif not python.exists():
        yield Finding("note", ".venv: its Python is gone; 'make up' replaces it")
    elif not setup_env.is_current(root, dev=False):
        yield Finding(
            "note", ".venv: unfinished or older than pyproject.toml; 'make up' brings it up to date"
        )
    else:
        yield Finding("ok", ".venv: complete and current")


def check_ports(root: Path, env: Mapping[str, str]) -> Iterator[Finding]:
    """Ports the environment asks for are ports, and free."""
    running = stack_pid(root / "var") is not None
    for name, text in sorted(env.items()):
        if not (name.startswith("TOKENWORKS_") and name.endswith("_PORT")):
            continue
        if not text.isdigit() or not 0 < int(text) < 65536:
            yield Finding("bad", f"{name}={text}: not a port number between 1 and 65535")
        elif running:
            yield Finding("note", f"{name}={text}: not tried, because the stack is up")
        elif not _is_free(int(text)):
            yield Finding("bad", f"{name}={text}: another program uses this port; choose another or stop it")
        else:
            yield Finding("ok", f"{name}={text}: free")


def check_servers(root: Path, env: Mapping[str, str]) -> Iterator[Finding]:
    """Servers the environment names can be reached."""
    for name, default in (("DATABASE_URL", 5432), ("REDIS_URL", 6379)):
        if not env.get(name):
            continue
        url = urlsplit(env[name])
        host, port = url.hostname or "localhost", url.port or default
        try:
            socket.create_connection((host, port), timeout=3).close()
        except OSError as error:
            yield Finding("bad", f"{name}: nothing answers at {host}:{port} ({error}); unset it to use ours")
        else:
            yield Finding("ok", f"{name}: {host}:{port} answers")


def check_account(root: Path, env: Mapping[str, str]) -> Iterator[Finding]:
    """As root there must be somebody else for PostgreSQL to run as."""
    if os.geteuid() == 0 and not any(entry.pw_uid for entry in pwd.getpwall()):
        yield Finding("bad", "we are root and there is no other user: PostgreSQL refuses to run as root")


def check_state(root: Path, env: Mapping[str, str]) -> Iterator[Finding]:
    """Whether the stack is up, and what an earlier one left running."""
    var = root / "var"
    pid = stack_pid(var)
    if pid is not None:
        yield Finding("note", f"the stack is up (supervisor {pid}); see var/up.json")
        return
    for each in _left_running(var):
        yield Finding("note", f"process {each} of an earlier run still works in var/; 'make up' ends it")
    if (var / "up.json").exists():
        yield Finding("note", "var/up.json is from a run that did not end cleanly; 'make up' recovers")


def stack_pid(state: Path) -> int | None:
    """The supervisor that holds ``state``, or None."""
    try:
        with (state / "up.lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read() or 0)
    except OSError:
        return None
    return None


def _left_running(state: Path) -> Iterator[int]:
    try:
        pids = json.loads((state / "up.json").read_text()).get("pids", {}).values()
    except (OSError, ValueError):
        return
    for pid in pids:
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_text()
        except OSError:
            continue
        if str(state) in arguments:
            yield pid


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


Check = Callable[[Path, Mapping[str, str]], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    check_python, check_machine, check_disk, check_writable, check_memory, check_environment,
    check_account, check_ports, check_servers, check_state,
)  # fmt: skip


def main() -> int:
    """Print every finding."""
    root = Path(__file__).resolve().parent.parent.parent
    findings = [finding for check in CHECKS for finding in check(root, os.environ)]
    for finding in findings:
        print(_MARKS[finding.level] + finding.text.replace("\n", "\n       "))
    bad = sum(finding.level == "bad" for finding in findings)
    print(
        f"\n{bad} problem{'s' if bad != 1 else ''} found"
        if bad
        else "\nnothing stands in the way of 'make up'"
    )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
