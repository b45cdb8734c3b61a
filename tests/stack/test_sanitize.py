"""`make sanitize` finds what is wrong in a kernel, and says why it can not run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moe_ops.native import library
from moe_ops.native.build import BuildError, compiler
from stack import sanitize

WRONG = """
extern "C" int beyond(int place) { int* volatile p = new int[4]{}; return p[place]; }
extern "C" int too_large(int x) { return x + 2147483647; }
"""


@pytest.fixture
def environment() -> dict[str, str]:
    try:
        command = compiler()
        return {**os.environ, **sanitize.environment(command)}
    except BuildError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(
    ("call", "finding"), [("beyond(4)", "heap-buffer-overflow"), ("too_large(1)", "signed integer overflow")]
)
def test_the_first_finding_ends_the_process(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, finding: str
) -> None:
    monkeypatch.setenv("TOKENWORKS_SANITIZE", "1")
    source, built = tmp_path / "wrong.cpp", tmp_path / "wrong.so"
    source.write_text(WRONG)
    flags = [*library.COMMON_FLAGS, *library.sanitizer_flags()]
    visible = [flag for flag in flags if flag != "-fvisibility=hidden"]
    subprocess.run([*compiler(), *visible, "-shared", str(source), "-o", str(built)], check=True)
    script = f"import ctypes\nkernels = ctypes.CDLL({str(built)!r})\nkernels.beyond(3)\n"
    for line, right in (("", True), (f"kernels.{call}", False)):
        command = [sys.executable, "-c", script + line]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (ended.returncode == 0) is right
        assert (finding not in ended.stderr) is right


def test_the_library_lies_apart_and_has_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = library.library_name.__wrapped__(), library.folders()
    monkeypatch.setenv("TOKENWORKS_SANITIZE", "1")
    assert library.library_name.__wrapped__() != usual[0]
    assert [folder.parent for folder in library.folders()] == list(usual[1])


def test_a_compiler_without_sanitizers_is_named(tmp_path: Path) -> None:
    (program := tmp_path / "c++").write_text("#!/bin/sh\necho ${1#-print-file-name=}\n")
    program.chmod(0o755)
    with pytest.raises(BuildError, match=r"has no libasan\.so: gcc and its sanitizers are needed"):
        sanitize.environment([str(program)])
