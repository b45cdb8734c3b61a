from __future__ import annotations

import pytest
import torch

from inference.layers.rope import apply_rope
from moe_ops.rope import rotate_pairs


def test_rotation_gives_the_same_products_as_the_published_order() -> None:
    angle = torch.rand(7, 4) * 6
    cos, sin = angle.cos(), angle.sin()
    q, k = torch.randn(7, 8), torch.randn(7, 8)
    expected = apply_rope(q, cos, sin) @ apply_rope(k, cos, sin).T
    turn = torch.complex(cos, sin)
    torch.testing.assert_close(rotate_pairs(q, turn) @ rotate_pairs(k, turn).T, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_takes_any_slice(dtype: torch.dtype) -> None:
    """Complex views need even offsets and strides; what is not so is copied."""
    turn = torch.polar(torch.ones(5, 2), torch.rand(5, 2))
    wide = torch.randn(5, 9).to(dtype)
    expected = rotate_pairs(wide[:, 3:7].clone(), turn)
    assert rotate_pairs(wide[:, 3:7], turn).equal(expected)
    assert expected.dtype == dtype
