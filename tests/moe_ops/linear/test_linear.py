from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_ops.linear import FORMATS, PackedMatrix, WeightFormat, linear, pack_matrix
from moe_ops.linear import cpu as torch_form
from moe_ops.linear.reference import linear as reference

pytestmark = pytest.mark.usefixtures("isa")
PER_TEST = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def cases(draw: st.DrawFn) -> tuple[PackedMatrix, torch.Tensor]:
    """A matrix, and rows for it."""
    random = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    outputs, inputs, rows = draw(st.integers(1, 150)), draw(st.integers(1, 400)), draw(st.integers(1, 70))
    w = pack_matrix(
        torch.randn(outputs, inputs, generator=random),
        draw(st.sampled_from(FORMATS)),
        activations=draw(st.sampled_from(("int8", "float"))),
    )
    return w, torch.randn(rows, inputs, generator=random)


@PER_TEST
@given(case=cases())
def test_is_the_product_with_the_unpacked_weights(
    rounds: Callable[..., bool], case: tuple[PackedMatrix, torch.Tensor]
) -> None:
    w, x = case
    met = x.bfloat16().float() if w.format == "bfloat16" and rounds(w.format, w.activations) else x
    torch.testing.assert_close(linear(x, w), reference(met, w), rtol=1e-4, atol=2e-4)


@PER_TEST
@given(case=cases())
def test_a_row_comes_out_the_same_alone_and_on_any_number_of_threads(
    case: tuple[PackedMatrix, torch.Tensor],
) -> None:
    w, x = case
    together = linear(x, w)
    assert torch.equal(together, torch.cat([linear(row, w) for row in x.split(1)]))
    assert torch.equal(together, torch.cat([linear(part, w) for part in x.split(5)]))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(together, linear(x, w))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("weight_format", FORMATS)
def test_takes_and_fills_columns_of_wider_tensors(weight_format: WeightFormat) -> None:
    w = pack_matrix(torch.randn(40, 64), weight_format)
    wide, target = torch.randn(5, 100), torch.full((5, 50), 7.0)
    expected = linear(wide[:, 20:84].contiguous(), w)
    given_back = linear(wide[:, 20:84], w, out=target[:, 3:43])
    assert given_back.data_ptr() == target[:, 3:43].data_ptr()
    assert torch.equal(target[:, 3:43], expected)
    assert target[:, :3].eq(7).all()
    assert target[:, 43:].eq(7).all()
    linear(wide[:, 20:84], w, out=target[:, 3:43], add=True)
    assert torch.equal(target[:, 3:43], expected + expected)


def test_the_torch_form_agrees() -> None:
    w = pack_matrix(torch.randn(30, 50), "int8", activations="float")
    x, out = torch.randn(3, 50), torch.ones(3, 30)
    torch.testing.assert_close(torch_form.linear(x, w), linear(x, w), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch_form.linear(x, w, out=out, add=True), linear(x, w) + 1)


@pytest.mark.parametrize("weight_format", FORMATS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_visible(weight_format: WeightFormat, value: float) -> None:
    w = pack_matrix(torch.ones(20, 300), weight_format)
    x = torch.randn(3, 300)
    x[1, 140] = value
    finite = linear(x, w).isfinite()
    assert not finite[1].any()
    assert finite[[0, 2]].all()


def test_no_rows_and_zero_rows() -> None:
    w = pack_matrix(torch.randn(20, 30), "int8")
    assert linear(torch.empty(0, 30), w).shape == (0, 20)
    assert linear(torch.zeros(2, 30), w).eq(0).all()


@pytest.mark.parametrize(
    ("x", "out", "message"),
    [
        (torch.ones(2, 31), None, "data of a matrix of 20 × 31"),
        (torch.ones(2, 32, dtype=torch.float64), None, "x must be float32"),
        (torch.ones(32), None, "x must have two dimensions"),
        (torch.ones(32, 2).t(), None, "x must have its columns side by side"),
        (torch.ones(2, 32), torch.ones(2, 21), r"out must have shape \(rows, 20\)"),
        (torch.ones(2, 32), torch.ones(3, 20), "out has 3 rows, x 2"),
    ],
)
def test_misuse_is_named(x: torch.Tensor, out: torch.Tensor | None, message: str) -> None:
    w = pack_matrix(torch.ones(20, 32), "float32")
    with pytest.raises(RuntimeError, match=message):
        linear(x, w, out=torch.ones(2, 20) if out is None else out)
