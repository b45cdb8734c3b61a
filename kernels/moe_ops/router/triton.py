"""Scores, groups and choice in one kernel: nothing but the chosen experts leaves the chip.

Unmeasured: checked in Triton's interpreter only.
"""

# ruff: noqa: PLR0917 -- a kernel's arguments are positional
from __future__ import annotations

import torch
import triton
import triton.language as tl

from moe_ops.accelerator.tuning import Tuned, kernel, kernel_of
from moe_ops.router.reference import RouterSpec


def route(
    x_TD: torch.Tensor,
    weight_ED: torch.Tensor,
    bias_E: torch.Tensor | None,
    spec: RouterSpec,
    allowed_TE: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """As the reference. `allowed_TE` (or one row for all tokens) is False for experts that may not be
    chosen.

    Equal scores go to the lower expert number. A token whose scores are no numbers gets experts that exist.
    """
    tokens, hidden = x_TD.shape
    experts = len(weight_ED)
    weights_TK = torch.empty(tokens, spec.top_k, dtype=torch.float32, device=x_TD.device)
    experts_TK = torch.empty(tokens, spec.top_k, dtype=torch.int64, device=x_TD.device)
    if not tokens:
        return weights_TK, experts_TK
    size = experts // spec.groups
    allowed = None if allowed_TE is None else torch.broadcast_to(allowed_TE, (tokens, experts))
    _KERNEL.launch(
        lambda tiles: (triton.cdiv(tokens, tiles["BLOCK_T"]),),
        x_TD, weight_ED, bias_E, allowed, weights_TK, experts_TK,
        x_TD.stride(0), 0 if allowed is None else allowed.stride(0), tokens, hidden, spec.scale,
        SIGMOID=spec.scoring == "sigmoid", NORMALIZE=spec.normalize, TOP_K=spec.top_k,
        GROUPS=spec.groups, KEPT=spec.groups_kept, SIZE=size,
        GROUPS_UP=triton.next_power_of_2(spec.groups), SIZE_UP=triton.next_power_of_2(size),
    )  # fmt: skip
    return weights_TK, experts_TK


@kernel_of("allowed_step", "tokens")
def _route(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    allowed: tl.tensor,
    weights: tl.tensor,
    experts: tl.tensor,
    x_step: tl.tensor,
    allowed_step: tl.tensor,
    tokens: tl.tensor,
    hidden: tl.tensor,
    scale: tl.tensor,
    SIGMOID: tl.constexpr,
    NORMALIZE: tl.constexpr,
    TOP_K: tl.constexpr,
    GROUPS: tl.constexpr,
    KEPT: tl.constexpr,
    SIZE: tl.constexpr,
    GROUPS_UP: tl.constexpr,
    SIZE_UP: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
) -> None:
    EXPERTS_UP: tl.constexpr = GROUPS_UP * SIZE_UP
    NEVER: tl.constexpr = float("-inf")
    token = (tl.program_id(0) * BLOCK_T + tl.arange(0, BLOCK_T)).to(tl.int64)
    there = token < tokens
    # Each group is filled up to a power of two: column c is place c % SIZE_UP of group c // SIZE_UP.
    column = tl.arange(0, EXPERTS_UP)
    group, place = column // SIZE_UP, column % SIZE_UP
    expert = group * SIZE + place
    real = (group < GROUPS) & (place < SIZE)

    logits = tl.zeros((BLOCK_T, EXPERTS_UP), tl.float32)
    for first in range(0, hidden, BLOCK_D):
        deep = first + tl.arange(0, BLOCK_D)
        inside = deep < hidden
        x_tile = tl.load(
            x + token[:, None] * x_step + deep[None, :], mask=there[:, None] & inside[None, :], other=0.0
        )
        w_tile = tl.load(
            weight + expert[None, :] * hidden + deep[:, None], mask=real[None, :] & inside[:, None], other=0.0
        )
        logits += tl.dot(x_tile.to(tl.float32), w_tile.to(tl.float32), input_precision="ieee")
    logits = tl.where(real[None, :], logits, NEVER)

    if SIGMOID:
        scores = 1 / (1 + tl.exp(-logits))
    else:
        powers = tl.exp(logits - tl.max(logits, axis=1)[:, None])
        scores = powers / tl.sum(powers, axis=1)[:, None]
    choice = scores
    if bias is not None:
        choice += tl.load(bias + expert, mask=real, other=0.0)[None, :]
    usable = real[None, :] & (choice > NEVER)  # false for what is not a number
    if allowed is not None:
        free = tl.load(
            allowed + token[:, None] * allowed_step + expert[None, :],
            mask=there[:, None] & real[None, :], other=0,
        )  # fmt: skip
        usable = usable & (free != 0)
    choice = tl.where(usable, choice, NEVER)

    if KEPT < GROUPS:
        members = tl.reshape(choice, (BLOCK_T, GROUPS_UP, SIZE_UP))
        members = _best_groups(members, bias is not None, KEPT, BLOCK_T, GROUPS_UP, SIZE_UP)
        choice = tl.reshape(members, (BLOCK_T, EXPERTS_UP))

    total = tl.zeros((BLOCK_T,), tl.float32)
    for slot in tl.static_range(TOP_K):
        chosen = tl.argmax(choice, axis=1)
        hit = column[None, :] == chosen[:, None]
        score = tl.sum(tl.where(hit, scores, 0.0), axis=1)
        score = tl.where(tl.max(choice, axis=1) == NEVER, score * 0, score)  # one that fills up
        choice = tl.where(hit, NEVER, choice)
        total += score
        number = chosen // SIZE_UP * SIZE + chosen % SIZE_UP
        tl.store(experts + token * TOP_K + slot, number.to(tl.int64), mask=there)
        tl.store(weights + token * TOP_K + slot, score * scale, mask=there)
    if NORMALIZE:
        for slot in tl.static_range(TOP_K):
            at = weights + token * TOP_K + slot
            tl.store(at, tl.load(at, mask=there, other=0.0) / (total + 1e-20), mask=there)


@kernel
def _best_groups(
    members: tl.tensor,
    TWO: tl.constexpr,
    KEPT: tl.constexpr,
    BLOCK_T: tl.constexpr,
    GROUPS_UP: tl.constexpr,
    SIZE_UP: tl.constexpr,
) -> tl.tensor:
    """`members`, with −inf in all groups but KEPT: those whose best two, or best one, are highest."""
    NEVER: tl.constexpr = float("-inf")
    rank = tl.max(members, axis=2)
    if TWO:
        best = tl.argmax(members, axis=2)
        others = tl.where(tl.arange(0, SIZE_UP)[None, None, :] == best[:, :, None], NEVER, members)
        rank += tl.max(others, axis=2)
    kept = tl.zeros((BLOCK_T, GROUPS_UP), tl.int32)
    for _ in tl.static_range(KEPT):
        first = tl.argmax(rank, axis=1)
        hit = tl.arange(0, GROUPS_UP)[None, :] == first[:, None]
        kept = tl.where(hit, 1, kept)
        rank = tl.where(hit, NEVER, rank)
    return tl.where(kept[:, :, None] == 1, members, NEVER)


_KERNEL = Tuned(
    _route,
    [
        triton.Config({"BLOCK_T": 16, "BLOCK_D": 64}, num_warps=8, num_stages=3),
        triton.Config({"BLOCK_T": 16, "BLOCK_D": 32}, num_warps=4, num_stages=4),
        triton.Config({"BLOCK_T": 32, "BLOCK_D": 32}, num_warps=8, num_stages=3),
    ],
    key=["hidden", "GROUPS_UP", "SIZE_UP"],
)
