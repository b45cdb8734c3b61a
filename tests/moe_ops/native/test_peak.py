"""The ceiling of arithmetic counts what it says, on every instruction set that runs here."""

from __future__ import annotations

import pytest
import torch

from moe_ops.linear import FORMATS


@pytest.mark.parametrize("weight_format", range(len(FORMATS)), ids=FORMATS)
def test_operations_are_counted_for_every_thread_and_round(isa: str, weight_format: int) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = torch.ops.tokenworks.peak(weight_format, 3)
        assert one > 0
        assert torch.ops.tokenworks.peak(weight_format, 6) == 2 * one
        torch.set_num_threads(2)
        assert torch.ops.tokenworks.peak(weight_format, 3) == 2 * one
    finally:
        torch.set_num_threads(before)
