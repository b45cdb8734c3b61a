"""Create or repair ``.venv`` with the pinned dependencies. Run by any Python 3; standard library only.

``setup_env.py [--dev]`` does nothing when a stamp in ``.venv`` matches ``pyproject.toml``,
``constraints.txt`` and the set asked for. The stamp is removed before anything changes and written last, so
an interrupted installation is finished by the next run.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MINIMUM = (3, 11)
_NATIVE = Path("kernels", "moe_ops", "native")
_CANDIDATES = ("python3", "python3.13", "python3.12", "python3.11", "python3.14", "python")
_PROBE = (
    "import sys, importlib.util as u; print(*sys.version_info[:2],"
    " *[name for name in ('venv', 'ensurepip') if u.find_spec(name) is None])"
)


class SetupError(Exception):
    """Something the user must change; the message says what."""


def environment_digest(root: Path) -> str:
    """Changes whenever the declared dependencies change."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def stamp_path(root: Path) -> Path:
    """Where a finished installation is recorded."""
    return root / ".venv" / "tokenworks-setup.json"


def is_current(root: Path, *, dev: bool) -> bool:
    """Whether ``.venv`` holds what is declared now: the development set includes the other."""
    try:
        stamp: dict[str, Any] = json.loads(stamp_path(root).read_text())
    except (OSError, ValueError):
        return False
    return (
        stamp.get("digest") == environment_digest(root)
        and stamp.get("root") == str(root)
        and (bool(stamp.get("dev")) or not dev)
        and (root / ".venv" / "bin" / "python").exists()
    )


def interpreter_problem(command: str) -> str | None:
    """Why ``command`` cannot make the environment, or None when it can."""
    path = shutil.which(command)
    if path is None:
        return f"{command}: not found"
    result = subprocess.run([path, "-I", "-c", _PROBE], capture_output=True, text=True, check=False)
    words = result.stdout.split()
    if result.returncode != 0 or len(words) < 2:
        return f"{path}: does not run ({result.stderr.strip() or 'no output'})"
    version = (int(words[0]), int(words[1]))
    if version < MINIMUM:
        return f"{path}: Python {words[0]}.{words[1]}, but {MINIMUM[0]}.{MINIMUM[1]} or newer is needed"
    if words[2:]:
        return (
            f"{path}: lacks the standard module {' and '.join(words[2:])}; "
            f"on Debian or Ubuntu: apt install python{words[0]}.{words[1]}-venv"
        )
    return None


def interpreter_find() -> str:
    """The first suitable Python, this one before those on PATH. Raises SetupError with all reasons."""
    problems = []
    for command in (sys.executable, *_CANDIDATES):
        problem = interpreter_problem(command)
        if problem is None:
            return command
        problems.append(problem)
    reasons = "\n".join(f"  - {problem}" for problem in dict.fromkeys(problems))
    raise SetupError(f"no suitable Python was found. Tried:\n{reasons}")


class Progress:
    """A line for each phase, with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line at once."""
        print(f"[setup {time.monotonic() - self._began:5.1f} s] {text}", flush=True)


def venv_ensure(root: Path, progress: Progress) -> Path:
    """A working interpreter with pip in ``.venv``; a broken environment is replaced."""
    python = root / ".venv" / "bin" / "python"
    if _runs(python, "import pip"):
        return python
    base = interpreter_find()
    verb = "replacing the broken" if (root / ".venv").exists() else "creating"
    progress.say(f"{verb} .venv with {base}")
    result = subprocess.run(
        [base, "-m", "venv", "--clear", str(root / ".venv")], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise SetupError(f"{base} could not create .venv:\n{result.stdout}{result.stderr}".rstrip())
    return python


def _runs(python: Path, code: str) -> bool:
    try:
        result = subprocess.run([str(python), "-c", code], capture_output=True, check=False)
    except OSError:
        return False
    return result.returncode == 0


def packages_install(root: Path, python: Path, *, dev: bool) -> None:
    """Install the project in place with its pinned dependencies. The user's PIP_* variables apply."""
    target = f"{root}[dev]" if dev else str(root)
    command = [
        str(python), "-m", "pip", "install", "--disable-pip-version-check",
        "--constraint", str(root / "constraints.txt"), "--editable", target,
    ]  # fmt: skip
    if subprocess.run(command, cwd=root, check=False).returncode != 0:
        raise SetupError(
            "pip could not install the dependencies (see its message above). If the network failed, "
            "run the same command again: what was downloaded is kept"
        )


def kernels_digest(root: Path) -> str:
    """Changes whenever the engine's C++ kernels, what compiles them or the environment change."""
    digest = hashlib.sha256(environment_digest(root).encode())
    for path in sorted([*(root / _NATIVE).glob("*.py"), *(root / _NATIVE).glob("csrc/*")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def kernels_ensure(root: Path, progress: Progress) -> None:
    """Compile the CPU kernels when they changed. Without a compiler the engine runs on torch, slower."""
    stamp = root / ".venv" / "tokenworks-kernels"
    digest = kernels_digest(root)
    built = any((root / _NATIVE / "_build").glob("*.so"))
    if built and stamp.exists() and stamp.read_text() == digest:
        return
    python = str(root / ".venv" / "bin" / "python")
    if subprocess.run([python, "-m", "moe_ops.native.build"], cwd=root, check=False).returncode == 0:
        stamp.write_text(digest)
    else:
        progress.say("the CPU kernels could not be compiled: the engine will run on torch alone, slower")


def environment_ensure(root: Path, *, dev: bool) -> None:
    """Bring ``.venv`` up to date; one run at a time, others wait."""
    progress = Progress()
    with (root / "pyproject.toml").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        packages_ensure(root, progress, dev=dev)
        kernels_ensure(root, progress)


def packages_ensure(root: Path, progress: Progress, *, dev: bool) -> None:
    """Install what is declared unless it is there already."""
    if is_current(root, dev=dev):
        return
    stamp_path(root).unlink(missing_ok=True)
    python = venv_ensure(root, progress)
    what = "run-time and development" if dev else "run-time"
    progress.say(f"installing the pinned {what} dependencies (the first time this downloads for minutes)")
    packages_install(root, python, dev=dev)
    stamp = {"digest": environment_digest(root), "root": str(root), "dev": dev}
    partial = stamp_path(root).with_suffix(".partial")
    partial.write_text(json.dumps(stamp))
    partial.replace(stamp_path(root))
    progress.say("environment ready")


def main(argv: list[str]) -> int:
    """Exit status 0 when ``.venv`` is ready, 1 with the reason when it cannot be."""
    parser = argparse.ArgumentParser(description="Create or repair .venv")
    parser.add_argument("--dev", action="store_true", help="also install what tests, checks and benches need")
    options = parser.parse_args(argv)
    root = Path(__file__).resolve().parent.parent.parent
    if not os.access(root, os.W_OK):
        print(f"setup: {root} is not writable for this user", file=sys.stderr)
        return 1
    try:
        environment_ensure(root, dev=options.dev)
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
