from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_ops.linear import FORMATS, PackedMatrix, WeightFormat, pack_matrix, packed_shapes, unpack_matrix
from moe_ops.linear.packing import stack_matrices

# largest error of a weight as a share of its group's largest: half a step, and the rounding of the scale
TOLERANCE = {"float32": 0.0, "bfloat16": 2**-8, "int8": 0.51 / 127 + 2**-9, "int4": 1 / 8 + 2**-8}


@settings(max_examples=40, deadline=None)
@given(
    weight_format=st.sampled_from(FORMATS),
    outputs=st.integers(1, 50),
    inputs=st.integers(1, 300),
    seed=st.integers(0, 99),
)
def test_a_packed_matrix_holds_nearly_the_same_weights(
    weight_format: WeightFormat, outputs: int, inputs: int, seed: int
) -> None:
    weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(seed))
    matrix = pack_matrix(weight, weight_format)
    (data, dtype), (scales, _) = packed_shapes(weight_format, outputs=outputs, inputs=inputs)
    assert (matrix.data.shape, matrix.data.dtype, matrix.scales.shape) == (data, dtype, scales)
    error = (unpack_matrix(matrix) - weight).abs()
    group = {"int8": 128, "int4": 32}.get(weight_format, 1)
    for first in range(0, inputs, group):
        part = slice(first, first + group)
        largest = weight[:, part].abs().amax(1, keepdim=True)
        assert (error[:, part] <= TOLERANCE[weight_format] * largest).all()


@pytest.mark.parametrize("weight_format", FORMATS)
def test_zeros_stay_zeros(weight_format: WeightFormat) -> None:
    matrix = pack_matrix(torch.zeros(20, 40), weight_format)
    assert unpack_matrix(matrix).eq(0).all()
    assert matrix.scales.eq(0).all()


def test_the_first_bytes_of_int8_are_four_inputs_of_each_output() -> None:
    weight = torch.full((16, 128), 127.0)
    weight[0, :8] = torch.arange(8.0)
    data = pack_matrix(weight, "int8").data
    assert data[0, 0, 0].tolist() == [0, 1, 2, 3]
    assert data[0, 1, 0].tolist() == [4, 5, 6, 7]
    assert data[0, 0, 1].tolist() == [127] * 4


def test_an_int4_byte_holds_inputs_four_apart() -> None:
    weight = torch.zeros(16, 32)
    weight[0, 0], weight[0, 4], weight[0, 31] = 1.0, 2.0, -8.0
    assert pack_matrix(weight, "int4").data[0, 0, 0].tolist() == [9 + 16 * 10, 8 + 16 * 8, 136, 136]


def test_stacked_matrices_follow_each_other() -> None:
    weight = torch.randn(48, 33)
    parts = [pack_matrix(part, "int8") for part in weight.split(16)]
    stacked = stack_matrices(parts)
    assert (stacked.outputs, stacked.inputs) == (48, 33)
    assert torch.equal(unpack_matrix(stacked), unpack_matrix(pack_matrix(weight, "int8")))
    with pytest.raises(ValueError, match="no multiple of 16"):
        stack_matrices([pack_matrix(torch.ones(3, 4), "int8")] * 2)


def test_what_does_not_fit_is_refused() -> None:
    good = pack_matrix(torch.ones(16, 8), "int8")
    with pytest.raises(ValueError, match=r"data of a int8 matrix 32 × 8"):
        PackedMatrix("int8", 32, 8, good.data, good.scales)
    with pytest.raises(ValueError, match="scales of a int8"):
        PackedMatrix("int8", 16, 8, good.data, good.scales.float())
    with pytest.raises(ValueError, match="expected \\(outputs, inputs\\)"):
        pack_matrix(torch.ones(4), "int8")
    with pytest.raises(ValueError, match="format 'int5'"):
        pack_matrix(torch.ones(4, 4), "int5")  # type: ignore[arg-type]  # what a caller may pass
    with pytest.raises(ValueError, match="activations 'half'"):
        pack_matrix(torch.ones(4, 4), "int8", activations="half")  # type: ignore[arg-type]  # likewise
