"""Sorting pairs of token and expert into blocks of one expert each, in shapes that data do not change."""

from __future__ import annotations

from dataclasses import dataclass

import torch

_BLOCKS = (16, 32, 64, 128)  # rows that one program multiplies


@dataclass(frozen=True, slots=True)
class Blocks:
    """`order_X` names the pair of each place, or the number of pairs for an empty one; `expert_B` the expert
    of each block of `rows` places, or the number of experts for a block that is not used.
    """

    order_X: torch.Tensor
    expert_B: torch.Tensor
    rows: int


def rows_per_block(pairs: int, experts: int) -> int:
    """The smallest block that holds an expert's average share of `pairs`, within 16 to 128."""
    share = -(-pairs // experts)
    return next((rows for rows in _BLOCKS if rows >= share), _BLOCKS[-1])


def sort_pairs(experts_TK: torch.Tensor, *, experts: int, rows: int) -> Blocks:
    """Pair t · K + k is of token t and its expert `experts_TK[t, k]`; numbers outside 0 to `experts` are left
    out, being other devices'. Nothing is copied from the device, so this can be part of a captured graph.
    """
    expert_M = experts_TK.flatten()
    pairs = len(expert_M)
    own_M = (expert_M >= 0) & (expert_M < experts)
    expert_M = torch.where(own_M, expert_M, experts)
    count_E = expert_M.new_zeros(experts + 1).scatter_add_(0, expert_M, torch.ones_like(expert_M))
    filled_E = torch.div(count_E + rows - 1, rows, rounding_mode="floor") * rows
    end_E = filled_E[:experts].cumsum(0)
    sorted_M, pair_M = expert_M.sort(stable=True)
    # Places of the left-out expert lie behind all blocks, in a place of their own.
    places = min(-(-(pairs + experts * (rows - 1)) // rows), pairs) * rows
    first_E = torch.cat([end_E - filled_E[:experts], end_E.new_full((1,), places)])
    within_M = torch.arange(pairs, device=expert_M.device) - (count_E.cumsum(0) - count_E)[sorted_M]
    place_M = torch.where(sorted_M < experts, first_E[sorted_M] + within_M, places)
    order_X = expert_M.new_full((places + 1,), pairs).scatter_(0, place_M, pair_M)[:places]
    start_B = torch.arange(0, places, rows, device=expert_M.device)
    return Blocks(order_X, torch.searchsorted(end_E, start_B, right=True), rows)
