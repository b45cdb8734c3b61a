"""The tensors that all layers of one forward pass share.

Shape suffixes, here and in all layers: T tokens, D hidden, H heads, L latent width, R rotary width, C = L +
R, B sequences of an attention group, N new tokens of each, S context positions, P pages, Z positions in a
page.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class AttentionGroup:
    """Sequences whose attention is computed together, padded to one rectangle.

    Their tokens are `first` to `first + count` of the flat batch. Where the rectangle has padding, `token_BN`
    tells which token each place stands for (any token for padding) and `place_T` which place holds each
    token.
    """

    first: int
    count: int
    new: int
    pages_BP: torch.Tensor
    mask_BNS: torch.Tensor
    token_BN: torch.Tensor | None = None
    place_T: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class FlatBatch:
    """The tokens of all rows of a step, one after the other.

    `turn_TR` are the rotations of each token's position as complex numbers (half of R), `slot_T` the places
    in the cache that take each token's latent, `last_S` the tokens whose logits are wanted.
    """

    token_T: torch.Tensor
    turn_TR: torch.Tensor
    slot_T: torch.Tensor
    groups: tuple[AttentionGroup, ...]
    last_S: torch.Tensor
