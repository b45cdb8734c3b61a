"""When the environment is current, when it is rebuilt, and what is said when no Python fits."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from stack import setup_env


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with a finished run-time environment."""
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    (tmp_path / "constraints.txt").write_text("")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    stamp(tmp_path, dev=False)
    return tmp_path


def stamp(root: Path, *, dev: bool) -> None:
    facts = {"digest": setup_env.environment_digest(root), "root": str(root), "dev": dev}
    setup_env.stamp_path(root).write_text(json.dumps(facts))


def fake_python(folder: Path, answer: str) -> str:
    """A program that answers the probe as a Python of another kind would."""
    program = folder / "python3-fake"
    program.write_text(f"#!/bin/sh\necho '{answer}'\n")
    program.chmod(0o755)
    return str(program)


def test_a_matching_stamp_means_nothing_to_do(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup_env, "packages_install", lambda *_args, **_more: pytest.fail("installed"))
    setup_env.environment_ensure(root, dev=False)


def test_the_run_time_set_does_not_satisfy_development(root: Path) -> None:
    assert setup_env.is_current(root, dev=False)
    assert not setup_env.is_current(root, dev=True)
    stamp(root, dev=True)
    assert setup_env.is_current(root, dev=True)
    assert setup_env.is_current(root, dev=False)


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_a_changed_declaration_is_noticed(root: Path, name: str) -> None:
    (root / name).write_text("# changed\n")
    assert not setup_env.is_current(root, dev=False)


def test_a_copied_or_broken_environment_is_not_current(root: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    root_files = [root / "pyproject.toml", root / "constraints.txt"]
    (moved / ".venv" / "bin").mkdir(parents=True)
    for file in root_files:
        (moved / file.name).write_text(file.read_text())
    (moved / ".venv" / "bin" / "python").symlink_to(sys.executable)
    setup_env.stamp_path(moved).write_text(setup_env.stamp_path(root).read_text())
    assert not setup_env.is_current(moved, dev=False)
    (root / ".venv" / "bin" / "python").unlink()
    assert not setup_env.is_current(root, dev=False)


def test_an_interrupted_installation_leaves_no_stamp_and_is_finished_by_the_next_run(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (root / "constraints.txt").write_text("# newer\n")
    monkeypatch.setattr(setup_env, "venv_ensure", lambda _root, _progress: Path(sys.executable))

    def interrupted(*_args: object, **_more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(setup_env, "packages_install", interrupted)
    with pytest.raises(KeyboardInterrupt):
        setup_env.environment_ensure(root, dev=True)
    assert not setup_env.stamp_path(root).exists()
    installed: list[bool] = []
    monkeypatch.setattr(setup_env, "packages_install", lambda *_args, dev: installed.append(dev))
    setup_env.environment_ensure(root, dev=True)
    assert installed == [True]
    assert setup_env.is_current(root, dev=True)
    assert "installing the pinned run-time and development dependencies" in capfd.readouterr().out


@pytest.fixture
def kernels(root: Path) -> Path:
    """The project's folder of C++ sources, and a Python that "compiles" them and counts how often."""
    folder = root / "kernels" / "moe_ops" / "native"
    (folder / "csrc").mkdir(parents=True)
    (folder / "csrc" / "product.cpp").write_text("// one\n")
    python = root / ".venv" / "bin" / "python"
    python.unlink()
    python.write_text(
        f"#!/bin/sh\necho x >> '{root}/runs'\nmkdir -p '{folder}/_build'\n: > '{folder}/_build/k.so'\n"
    )
    python.chmod(0o755)
    return folder


def runs(root: Path) -> int:
    file = root / "runs"
    return len(file.read_text().split()) if file.exists() else 0


def test_kernels_are_compiled_once_and_again_when_a_source_changes(root: Path, kernels: Path) -> None:
    for _ in range(2):
        setup_env.environment_ensure(root, dev=False)
    assert runs(root) == 1
    (kernels / "csrc" / "product.cpp").write_text("// two\n")
    setup_env.environment_ensure(root, dev=False)
    assert runs(root) == 2
    (kernels / "_build" / "k.so").unlink()
    setup_env.environment_ensure(root, dev=False)
    assert runs(root) == 3


def test_a_machine_without_a_compiler_is_told_and_served(
    root: Path, kernels: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (root / ".venv" / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    setup_env.environment_ensure(root, dev=False)
    assert "the engine will run on torch alone" in capfd.readouterr().out
    assert kernels.exists()


def test_unsuitable_interpreters_are_explained(tmp_path: Path) -> None:
    assert setup_env.interpreter_problem(sys.executable) is None
    old = setup_env.interpreter_problem(fake_python(tmp_path, "3 9"))
    assert old is not None
    assert "Python 3.9, but 3.11 or newer is needed" in old
    bare = setup_env.interpreter_problem(fake_python(tmp_path, "3 12 ensurepip"))
    assert bare is not None
    assert "apt install python3.12-venv" in bare
    missing = setup_env.interpreter_problem("no-such-python")
    assert missing == "no-such-python: not found"


def test_when_no_python_fits_every_reason_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(setup_env, "_CANDIDATES", ("no-such-python",))
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, "3 9"))
    with pytest.raises(setup_env.SetupError, match=r"(?s)3\.9.*no-such-python: not found"):
        setup_env.interpreter_find()


def test_a_broken_environment_is_replaced(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    python = root / ".venv" / "bin" / "python"
    python.unlink()
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    base = root / "base-python"
    base.write_text(f'#!/bin/sh\necho "$@" > {root}/asked\n')
    base.chmod(0o755)
    monkeypatch.setattr(setup_env, "interpreter_find", lambda: str(base))
    assert setup_env.venv_ensure(root, setup_env.Progress()) == python
    assert (root / "asked").read_text().split() == ["-m", "venv", "--clear", str(root / ".venv")]
    assert "replacing the broken .venv" in capfd.readouterr().out


def test_a_base_python_that_cannot_make_one_is_reported(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / ".venv" / "bin" / "python").unlink()
    base = root / "base-python"
    base.write_text("#!/bin/sh\necho 'no space left'; exit 3\n")
    base.chmod(0o755)
    monkeypatch.setattr(setup_env, "interpreter_find", lambda: str(base))
    with pytest.raises(setup_env.SetupError, match="no space left"):
        setup_env.venv_ensure(root, setup_env.Progress())
