"""Run by `test_triton.py` in Triton's interpreter."""

from __future__ import annotations

import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from moe_ops.rms_norm import reference
from moe_ops.rms_norm.triton import add_rms_norm_, rms_norm

TYPES = st.sampled_from([torch.float32, torch.bfloat16])


@settings(max_examples=15, deadline=None, derandomize=True, phases=[Phase.generate])
@given(tokens=st.integers(0, 5), hidden=st.integers(1, 70), dtype=TYPES, seed=st.integers(0, 99))
def test_matches_the_reference(tokens: int, hidden: int, dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    wide_TX = torch.randn(tokens, hidden + 3).to(dtype)
    weight_D = torch.randn(hidden).to(dtype)
    found_TD = rms_norm(wide_TX[:, :hidden], weight_D, 1e-6)
    expected_TD = reference.rms_norm(wide_TX[:, :hidden], weight_D, 1e-6)
    close(found_TD, expected_TD)


@settings(max_examples=15, deadline=None, derandomize=True, phases=[Phase.generate])
@given(tokens=st.integers(1, 4), hidden=st.integers(1, 40), dtype=TYPES)
def test_adds_before_the_norm(tokens: int, hidden: int, dtype: torch.dtype) -> None:
    residual_TD, x_TD = torch.randn(2, tokens, hidden).to(dtype)
    weight_D, sum_TD = torch.randn(hidden).to(dtype), residual_TD + x_TD
    found_TD = add_rms_norm_(residual_TD, x_TD, weight_D, 1e-5)
    close(residual_TD, sum_TD)
    close(found_TD, reference.rms_norm(residual_TD, weight_D, 1e-5))


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    """To the last bits of fp32, to one of bf16 (the interpreter rounds halves up)."""
    assert found.dtype == expected.dtype
    rough = found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=2**-6 if rough else 1e-5, atol=1e-6)
