"""Remove state, builds and caches of this checkout, and nothing else. Standard library only."""

from __future__ import annotations

import fcntl
import shutil
import sys
from pathlib import Path

_FOLDERS = ("var", "build", "dist", ".pytest_cache", ".mypy_cache", ".ruff_cache", ".import_linter_cache",
            ".hypothesis")  # fmt: skip


def is_running(state: Path) -> bool:
    """Whether a supervisor holds the lock of ``state``."""
    try:
        with (state / "up.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def folder_remove(folder: Path) -> None:
    """Remove ``folder``, and what service homes inside it link to outside of it."""
    for home in folder.glob("*/home"):
        if home.is_symlink() and home.resolve().is_dir():
            shutil.rmtree(home.resolve())
    shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """Exit status 1 when the stack is running."""
    root = Path(__file__).resolve().parent.parent.parent
    if is_running(root / "var"):
        print("clean: the stack is running on var/: stop it first (Ctrl-C in its terminal)", file=sys.stderr)
        return 1
    for name in _FOLDERS:
        folder_remove(root / name)
    for cache in root.glob("**/__pycache__"):
        if ".venv" not in cache.parts:
            shutil.rmtree(cache, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
