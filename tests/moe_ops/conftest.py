"""The C++ kernels, compiled before the first test that wants them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from moe_ops import native
from moe_ops.native.build import BuildError, build, compiler


@pytest.fixture(scope="session")
def library() -> None:
    """The kernels can be called; without a compiler the test is skipped."""
    try:
        compiler()
    except BuildError as error:
        pytest.skip(str(error))
    build()
    native.available.cache_clear()
    assert native.available()


@pytest.fixture(params=["portable", "best"])
def isa(request: pytest.FixtureRequest, library: None) -> Iterator[str]:
    """The name of an instruction set in use: the portable one, then this processor's best."""
    before = native.use_isa(str(native.features()["best"]) if request.param == "best" else "portable")
    yield str(native.features()["isa"])
    native.use_isa(before)
