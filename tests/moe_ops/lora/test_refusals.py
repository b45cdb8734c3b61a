"""Calls of the native operation whose tensors and tables lie; none may read or write beside its memory."""

from __future__ import annotations

import pytest
import torch

from moe_ops.lora import LoraBank, pack_low_rank

pytestmark = pytest.mark.usefixtures("library")


def _call(**other: object) -> None:
    """`lora_add_` of two tokens and one change of 8 × 4, but for what `other` says."""
    bank = LoraBank({"m": pack_low_rank(torch.ones(2, 4), torch.ones(8, 2))})
    arguments = {
        "out": torch.zeros(2, 8),
        "x": torch.ones(2, 4),
        "banks": [bank.data_X],
        "tables": [bank.parts_table((("m", 0),))],
        "token": torch.tensor([1], dtype=torch.int32),
        "first": torch.tensor([0, 1], dtype=torch.int32),
    } | other
    torch.ops.tokenworks.lora_add_(*arguments.values())


def _table(field: int, value: int) -> torch.Tensor:
    table = (
        LoraBank({"m": pack_low_rank(torch.ones(2, 4), torch.ones(8, 2))}).parts_table((("m", 0),)).clone()
    )
    table[0, field] = value
    return table


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"x": torch.ones(3, 4)}, "out has 2 rows, x 3"),
        ({"x": torch.ones(2, 6)}, "4 inputs meets 6"),
        ({"x": torch.ones(2, 4, dtype=torch.float64)}, "must be float32"),
        ({"out": torch.zeros(2, 7)}, "are not there"),
        ({"token": torch.tensor([2], dtype=torch.int32)}, "token 2 of 2"),
        ({"token": torch.tensor([-1], dtype=torch.int32)}, "token -1 of 2"),
        ({"token": torch.tensor([1, 1], dtype=torch.int32),
          "first": torch.tensor([0, 2], dtype=torch.int32)}, "two adapters"),
        ({"token": torch.tensor([1])}, "expected contiguous int32"),
        ({"first": torch.tensor([0, 2], dtype=torch.int32)}, "numbers from 0 to 1"),
        ({"banks": []}, "0 banks, 1 tables"),
        ({"banks": [torch.zeros(8, dtype=torch.uint8)]}, "outside its bank"),
        ({"banks": [torch.zeros(8)]}, "contiguous bytes"),
        ({"tables": [torch.zeros(1, 3, dtype=torch.int64)]}, "of shape"),
        ({"tables": [_table(0, 1 << 23)]}, "outside its bank"),
        ({"tables": [_table(0, -1)]}, "no change of rank"),
        ({"tables": [_table(3, 1)]}, "are not there"),
        ({"tables": [_table(4, -64)]}, "outside its bank"),
        ({"tables": [_table(4, 1 << 62)]}, "outside its bank"),
        ({"tables": [_table(5, 0)]}, "outside its bank"),
        ({"tables": [_table(6, 2)]}, "float32 or bfloat16"),
        ({"tables": [_table(7, 1 << 20)]}, "outside its bank"),
        ({"tables": [_table(0, 2).repeat(2, 1)]}, "overlap"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(other: dict[str, object], message: str) -> None:
    _call()
    with pytest.raises(RuntimeError, match=message):
        _call(**other)
