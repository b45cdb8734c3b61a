"""A name for a checkpoint's contents that does not cost reading it at every start."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from inference.models.index import checkpoint_files

_MEMORY = "digests.json"


def checkpoint_digest(path: Path, *, cache_dir: Path, settings: str) -> str:
    """SHA-256 (hex) over `settings` and the names and contents of the folder's configuration and weights.

    What was read once is remembered in `cache_dir` by the file's size, time of change and identity.
    """
    names = ["config.json", *checkpoint_files(path)[0]]
    known = _known(cache_dir)
    found = {
        _identity(path / name): known.get(_identity(path / name)) or _sha256(path / name) for name in names
    }
    if not found.items() <= known.items():
        _remember(cache_dir, known | found)
    digests = [(name, found[_identity(path / name)]) for name in names]
    return hashlib.sha256(json.dumps([settings, digests]).encode()).hexdigest()


def _identity(file: Path) -> str:
    stat = file.stat()
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _known(cache_dir: Path) -> dict[str, str]:
    try:
        known = json.loads((cache_dir / _MEMORY).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # nothing is lost but time
    return known if isinstance(known, dict) else {}


def _remember(cache_dir: Path, known: dict[str, str]) -> None:
    cache_dir.mkdir(parents=True, exist_ok=True)
    part = cache_dir / f".{_MEMORY}.part"
    part.write_text(json.dumps(known), encoding="utf-8")
    part.replace(cache_dir / _MEMORY)
