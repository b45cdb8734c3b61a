"""Downloads and builds, each with its log and its time on the screen."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path


class FetchError(RuntimeError):
    """A download or a build failed; the message ends with the log's last lines."""


def run_logged(command: Sequence[str], log: Path, *, cwd: Path | None = None) -> None:
    """Run a command, append what it says to `log`, and print one line with its time."""
    log.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    print(f"  {' '.join(Path(part).name if '/' in part else part for part in command[:6])} …", flush=True)
    with log.open("ab") as file:
        status = subprocess.run(
            command, cwd=cwd, stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode
    if status != 0:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-8:]
        raise FetchError("\n".join([f"{command[0]} failed with status {status}; {log} ends:", *tail]))
    print(f"    done in {time.perf_counter() - began:.0f} s", flush=True)


def sdist_unpack(package: str, target: Path, *, scratch: Path) -> None:
    """Download a package's sources with pip and unpack them as the folder `target`.

    pip asks the sources for their metadata, for which it fetches the tools that build them; nothing is built.
    """
    options = ("--no-deps", "--no-binary", ":all:", "--dest", str(scratch))
    name = package.split("==", maxsplit=1)[0].replace("-", "_")
    if not list(scratch.glob(f"{name}-*.tar.gz")):
        run_logged([sys.executable, "-m", "pip", "download", *options, package], scratch / "pip.log")
    (archive,) = scratch.glob(f"{name}-*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(scratch, filter="data")
    (scratch / archive.name.removesuffix(".tar.gz")).replace(target)
