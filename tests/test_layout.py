"""Traps of the layout: what must not be importable, and what must not be imported where."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE_ROOTS = ("platform", "kernels")


def modules_after(statement: str) -> set[str]:
    """Top-level modules a fresh interpreter has loaded after ``statement``."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, cwd="/", check=False
    )
    assert result.returncode == 0, result.stderr
    return {name.partition(".")[0] for name in json.loads(result.stdout.splitlines()[-1])}


@pytest.mark.parametrize("name", SOURCE_ROOTS)
def test_source_roots_hold_packages_and_are_none(name: str) -> None:
    assert not list((ROOT / name).glob("*.py")), f"{name}/ must have no modules of its own"
    for folder in (ROOT / name).iterdir():
        if folder.is_dir() and any(folder.glob("*.py")):
            assert (folder / "__init__.py").exists(), f"{folder} is no package"


def test_the_standard_library_keeps_its_platform_module() -> None:
    code = "import platform; print(platform.python_implementation())"
    for folder in (ROOT, ROOT / "tests"):
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, check=False
        )
        assert result.stdout.strip(), result.stderr


def test_no_package_of_ours_hides_one_of_the_standard_library() -> None:
    ours = {folder.name for name in SOURCE_ROOTS for folder in (ROOT / name).iterdir() if folder.is_dir()}
    assert not ours & set(sys.stdlib_module_names)
    assert "kernels" not in modules_after("import moe_ops")


def test_tests_are_no_packages() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


_SETUP = "import os; os.environ['DJANGO_SETTINGS_MODULE'] = 'config.settings'; import django; django.setup()"
_CONTROL = f"{_SETUP}; import config.asgi, config.urls"
_METER = f"{_SETUP}; import metering.run, metering.posting, directory.watch"


@pytest.mark.parametrize("statement", [_CONTROL, _METER, "import stack.run, stack.running"])
def test_the_control_plane_never_loads_torch(statement: str) -> None:
    loaded = modules_after(statement)
    assert not loaded & {"torch", "transformers", "moe_ops", "tokenizers"}


def test_the_gateway_brings_no_django_and_no_torch() -> None:
    loaded = modules_after("import gateway.app")
    assert not loaded & {"django", "ninja", "torch", "psycopg", "moe_ops", "pydantic"}


@pytest.mark.parametrize(
    "statement",
    [
        "import inference.engine, inference.engine.serving",
        "import inference.worker.__main__, inference.worker.main",
    ],
)
def test_the_engine_knows_neither_django_nor_the_control_plane(statement: str) -> None:
    ours = {folder.name for folder in (ROOT / "platform").iterdir() if folder.is_dir()} | {"tenants"}
    assert not modules_after(statement) & (ours | {"django", "ninja", "redis", "psycopg"})


def test_messages_need_only_the_standard_library() -> None:
    loaded = modules_after("import inference.messages")
    foreign = {name for name in loaded if name not in sys.stdlib_module_names and not name.startswith("_")}
    assert foreign <= {"inference", "json", "sitecustomize"}
