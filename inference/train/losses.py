"""The training objective: next token on every row, the token after next on a quarter of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional

from inference.train.network import Context, Network
from inference.train.packing import IGNORE, Batch


@dataclass(frozen=True, slots=True)
class Losses:
    """Mean negative log likelihoods in nats per learned token."""

    next_token: torch.Tensor
    after_next: torch.Tensor


def batch_losses(network: Network, batch: Batch) -> Losses:
    """Both losses of one batch; a quarter of the rows is enough for the second, which shares the trunk."""
    context = network.context(batch.position_RT, batch.attention_mask())
    state = network(batch.id_RT, context)
    drafted = max(1, len(state) // 4)
    part = Context(context.cos[:drafted], context.sin[:drafted], context.mask[:drafted])
    draft_state = network.mtp(
        network.embed_tokens(shifted_left(batch.id_RT[:drafted], 0)), state[:drafted], part
    )
    return Losses(
        next_token=_mean_loss(network, state, batch.label_RT),
        after_next=_mean_loss(network, draft_state, after_next_labels(batch)[:drafted]),
    )


def after_next_labels(batch: Batch) -> torch.Tensor:
    """The label of the token after next, where it belongs to the same document (R, T)."""
    label_RT = shifted_left(batch.label_RT, IGNORE)
    same = shifted_left(batch.document_RT, -2) == batch.document_RT
    return torch.where(same, label_RT, IGNORE)


def shifted_left(tensor_RT: torch.Tensor, fill: int) -> torch.Tensor:
    """Every row moved one place to the left, `fill` at its end."""
    return functional.pad(tensor_RT[:, 1:], (0, 1), value=fill)


def _mean_loss(network: Network, state_RTD: torch.Tensor, label_RT: torch.Tensor) -> torch.Tensor:
    """Only labelled positions reach the head, which is a fifth of the work."""
    learned = label_RT != IGNORE
    logits = network.lm_head(state_RTD[learned])
    return functional.cross_entropy(logits, label_RT[learned]) if len(logits) else logits.sum()
