from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from moe_ops import native
from moe_ops.linear import linear, pack_matrix
from moe_ops.native import build as builder
from moe_ops.native import library


def test_the_instruction_set_can_be_lowered_and_raised_again(isa: str) -> None:
    features = native.features()
    assert features["native"] is True
    assert features["isa"] == isa
    assert native.use_isa("portable") == isa
    assert native.features()["isa"] == "portable"
    with pytest.raises(ValueError, match="'mmx'"):
        native.use_isa("mmx")
    native.use_isa(isa)


@pytest.mark.usefixtures("library")
def test_a_finished_library_is_not_compiled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "_execute", lambda command: pytest.fail(f"ran {command}"))
    assert builder.build() == library.built_library()


def test_the_name_changes_with_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.cpp").write_text("int a;")
    monkeypatch.setattr(library, "SOURCES", tmp_path)
    first = library.library_name.__wrapped__()
    (tmp_path / "a.cpp").write_text("int b;")
    assert library.library_name.__wrapped__() != first


def test_without_a_compiler_the_reason_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(builder.BuildError, match="apt install g"):
        builder.compiler()


def test_a_compiler_that_is_named_but_missing_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(builder.BuildError, match="'no-such-compiler'"):
        builder.compiler()


def test_a_compiler_may_be_named_with_what_calls_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (program := tmp_path / "ccache").write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "ccache g++ -v")
    assert builder.compiler() == (str(program), "g++", "-v")


def test_a_compiler_s_complaint_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken.cpp").write_text("int broken = no_such_thing;")
    monkeypatch.setattr(builder, "SOURCES", tmp_path)
    monkeypatch.setattr(builder, "folders", lambda: (tmp_path / "out",))
    monkeypatch.setattr(builder, "built_library", lambda: None)
    with pytest.raises(builder.BuildError, match="no_such_thing"):
        builder.build()


def test_where_nothing_is_compiled_torch_runs_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native, "built_library", lambda: None)
    native.available.cache_clear()
    try:
        w, x = pack_matrix(torch.randn(20, 30), "int8"), torch.randn(2, 30)
        with caplog.at_level(logging.WARNING):
            torch.testing.assert_close(linear(x, w), linear(x, w))
        assert caplog.text.count("not compiled") == 1
        assert native.features() == {"native": False, "isa": "torch", "best": "torch"}
        with pytest.raises(ValueError, match="not compiled"):
            native.use_isa("portable")
    finally:
        native.available.cache_clear()


@pytest.mark.usefixtures("library")
def test_the_command_succeeds_at_once_when_all_is_compiled(library: None) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-m", "moe_ops.native.build"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
