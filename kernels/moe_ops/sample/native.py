"""The C++ kernels, or plain torch where they are not compiled or the logits lie elsewhere.

A row is read once or twice and never sorted: weights are summed by blocks of 64 tokens; what a cut keeps, and
the token drawn from it, are found by histograms of the weights' leading bits. See `csrc/sample_ranking.h`.
"""

from __future__ import annotations

import torch

from moe_ops import native
from moe_ops.sample import cpu
from moe_ops.sample.reference import Changes


def choose(logits_SV: torch.Tensor, limits_S5: torch.Tensor, changes: Changes | None = None) -> torch.Tensor:
    """As the reference."""
    if not _native(logits_SV):
        return cpu.choose(logits_SV, limits_S5, changes)
    ops = torch.ops.tokenworks
    chosen_S: torch.Tensor = (
        ops.choose_tokens(logits_SV, limits_S5)
        if changes is None
        else ops.choose_changed_tokens(
            logits_SV,
            limits_S5,
            changes.first_S1,
            changes.token_N,
            changes.count_N,
            changes.bias_N,
            changes.strength_S3,
            changes.mask_RB,
            changes.mask_row_S,
        )
    )
    return chosen_S


def token_logprobs(
    logits_SV: torch.Tensor, token_S: torch.Tensor, best: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As the reference."""
    if not _native(logits_SV):
        return cpu.token_logprobs(logits_SV, token_S, best)
    found: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = torch.ops.tokenworks.token_logprobs(
        logits_SV, token_S, best
    )
    return found


def _native(logits_SV: torch.Tensor) -> bool:
    return logits_SV.is_cpu and logits_SV.dtype == torch.float32 and native.available()
