"""The C++ kernels, compiled before the first test that wants them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from moe_ops import native
from moe_ops.linear import Activations, WeightFormat
from moe_ops.native.build import BuildError, build, compiler

Rounds = Callable[..., bool]


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


@pytest.fixture
def rounds(isa: str) -> Rounds:
    """Whether activations are rounded before they meet weights of a format on the instruction set in use:
    what comes out is then as near to the definition as that rounding allows.
    """

    def rounded(weight_format: WeightFormat, activations: Activations = "int8") -> bool:
        formats = ("bfloat16", "int8", "int4") if isa == "bf16" else ("int8", "int4")
        return activations == "int8" and weight_format in formats

    return rounded
