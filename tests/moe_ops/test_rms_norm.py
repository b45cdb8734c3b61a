from __future__ import annotations

import pytest
import torch

from moe_ops.rms_norm import reference, rms_norm


@pytest.mark.parametrize("shape", [(1, 16), (33, 64), (5, 7)])
@pytest.mark.parametrize("eps", [1e-6, 0.5])
def test_is_the_formula_in_double(shape: tuple[int, int], eps: float) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(shape), torch.randn(shape[1])
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()
    for form in (rms_norm, reference.rms_norm):
        torch.testing.assert_close(form(x, weight, eps).double(), exact, rtol=1e-5, atol=1e-6)


def test_zero_vector_stays_zero() -> None:
    assert rms_norm(torch.zeros(2, 8), torch.ones(8), 1e-6).eq(0).all()


def test_reads_strided_input_and_leaves_it_alone() -> None:
    x = torch.randn(4, 24)
    before = x.clone()
    out = rms_norm(x[:, 8:16], torch.ones(8), 1e-6)
    torch.testing.assert_close(out, reference.rms_norm(x[:, 8:16].clone(), torch.ones(8), 1e-6))
    assert x.equal(before)


def test_bf16_computes_statistics_in_fp32() -> None:
    x = torch.full((1, 256), 300.0, dtype=torch.bfloat16)  # 256 × 300² needs more than bf16's 8 bits
    assert rms_norm(x, torch.ones(256, dtype=torch.bfloat16), 1e-6).eq(1).all()


def test_native_is_the_formula_and_the_same_bits_alone(isa: str) -> None:
    for width in (7, 64, 100, 1024):
        wide, weight = torch.randn(40, width + 3), torch.randn(width)
        x = wide[:, 3:]
        found = rms_norm(x, weight, 1e-6)
        torch.testing.assert_close(found, reference.rms_norm(x, weight, 1e-6), rtol=1e-5, atol=1e-6, msg=isa)
        for row in (0, 17, 39):
            assert rms_norm(x[row : row + 1], weight, 1e-6)[0].equal(found[row]), isa
