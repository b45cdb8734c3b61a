from __future__ import annotations

import pytest
import torch

from moe_ops.linear import unpack_matrix
from moe_ops.lora import LoraBank, pack_low_rank


@pytest.mark.parametrize("rank", [1, 16, 40])
def test_factors_are_kept_as_they_are_and_in_halves_where_that_is_exact(rank: int) -> None:
    random = torch.Generator().manual_seed(rank)
    halves, odd = (torch.randn(rank, width, generator=random).bfloat16().float() for width in (64, 63))
    full = torch.randn(rank, 64, generator=random)
    b = torch.randn(32, rank, generator=random)
    bank = LoraBank({name: pack_low_rank(a, b) for name, a in (("h", halves), ("o", odd), ("f", full))})
    assert [change.a.format for change in bank.modules.values()] == ["bfloat16", "float32", "float32"]
    for change, a in zip(bank.modules.values(), (halves, odd, full), strict=True):
        assert torch.equal(unpack_matrix(change.a), a)
        assert torch.equal(unpack_matrix(change.b), b)
        assert change.a.data.untyped_storage().data_ptr() == bank.data_X.data_ptr()
    assert bank.touches("h")
    assert not bank.touches("x")
    with pytest.raises(ValueError, match="do not fit each other"):
        pack_low_rank(halves, torch.ones(32, rank + 1))
