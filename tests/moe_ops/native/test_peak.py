"""The ceiling of arithmetic counts what it says, on every instruction set that runs here."""

from __future__ import annotations

import pytest
import torch


@pytest.mark.parametrize("codes", [False, True])
def test_operations_are_counted_for_every_thread_and_round(isa: str, codes: bool) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = torch.ops.tokenworks.peak(codes, 3)
        assert one > 0
        assert torch.ops.tokenworks.peak(codes, 6) == 2 * one
        torch.set_num_threads(2)
        assert torch.ops.tokenworks.peak(codes, 3) == 2 * one
    finally:
        torch.set_num_threads(before)
