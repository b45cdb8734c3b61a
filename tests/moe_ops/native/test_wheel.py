"""Wheels built for real: with the library of these sources, without a compiler, for an editable checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from moe_ops.native.library import built_library

ROOT = Path(__file__).resolve().parents[3]
_SENTENCE = "carries no CPU kernels"
_FEATURES = "import moe_ops; from moe_ops import native; print(moe_ops.__file__, native.features()['native'])"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The project without compiled kernels; folders that a build only reads are links."""
    root = tmp_path / "checkout"
    shutil.copytree(
        ROOT / "kernels", root / "kernels", ignore=shutil.ignore_patterns("_build", "__pycache__")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE", "hatch_build.py", ".gitignore"):
        shutil.copy(ROOT / name, root)
    for name in ("platform", "tenants", "inference"):
        (root / name).symlink_to(ROOT / name)
    return root


def run(command: list[str], folder: Path, **environment: str) -> str:
    """Standard output and error of a command that has no compiler and no library but the folder's own."""
    nothing = {"CXX": "no-such-compiler", "XDG_CACHE_HOME": str(folder / "cache")}
    result = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, **nothing, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def wheel(checkout: Path, target: str = "wheel") -> tuple[Path, str]:
    """A new wheel and what its build said."""
    said = run(["-m", "hatchling", "build", "-t", target, "-d", "out"], checkout)
    (path,) = checkout.glob("out/*.whl")
    return path, said


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_without_a_compiler_a_wheel_is_pure_and_its_build_says_so_once(checkout: Path) -> None:
    path, said = wheel(checkout)
    assert path.name.endswith("-py3-none-any.whl")
    assert said.count(_SENTENCE) == 1
    assert "no-such-compiler" in said
    inside = names(path)
    assert not [name for name in inside if name.endswith(".so")]
    assert {"moe_ops/native/csrc/cpu.h", "gateway/run.py", "config/settings.py", "tenants/__init__.py"} <= {
        *inside
    }


@pytest.mark.usefixtures("library")
def test_a_wheel_carries_the_library_of_its_sources_and_needs_no_compiler(
    checkout: Path, tmp_path: Path
) -> None:
    library = built_library()
    assert library is not None
    folder = checkout / "kernels/moe_ops/native/_build"
    folder.mkdir()
    shutil.copy(library, folder)
    (folder / "tokenworks-0123456789abcdef0123.so").write_bytes(b"of other sources")
    path, said = wheel(checkout)
    assert _SENTENCE not in said
    assert path.name.split("-")[2:4] == ["py3", "none"]
    assert not path.name.endswith("any.whl")
    assert [name for name in names(path) if "native/_build" in name] == [
        f"moe_ops/native/_build/{library.name}"
    ]

    place = tmp_path / "site"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(place)
    assert b"Root-Is-Purelib: false" in next(place.glob("*.dist-info/WHEEL")).read_bytes()
    said = run(["-c", _FEATURES], place, PYTHONPATH=str(place))
    assert said.split() == [str(place / "moe_ops" / "__init__.py"), "True"]


def test_an_editable_wheel_compiles_nothing(checkout: Path) -> None:
    path, said = wheel(checkout, "wheel:editable")
    assert path.name.endswith("-py3-none-any.whl")
    assert _SENTENCE not in said
    assert not (checkout / "kernels/moe_ops/native/_build").exists()
