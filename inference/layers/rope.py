"""Rotary positions as DeepSeek-V2 and V3 use them: YaRN, interleaved pairs, a corrected softmax scale.

A rotated vector holds the first elements of all pairs, then the second ones. Queries and keys share the
order, so their products are those of the interleaved layout, and a cache of rotated keys is read with the
same convention. YaRN is always on, whatever the length.

Shape suffixes: T positions, R rotary dimensions (even), P = R / 2 pairs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from inference.models.config import ModelConfig, YarnConfig


@dataclass(frozen=True, slots=True)
class RopeTable:
    """Cosines and sines for positions 0, 1, … of one model, in fp32."""

    cos_TP: torch.Tensor
    sin_TP: torch.Tensor

    @classmethod
    def build(
        cls, config: ModelConfig, *, positions: int | None = None, device: torch.device | str = "cpu"
    ) -> RopeTable:
        """A table of `positions` rows (the model's `max_position_embeddings` when not given)."""
        count = config.max_position_embeddings if positions is None else positions
        position_T1 = torch.arange(count, dtype=torch.float32)[:, None]
        angle_TP = position_T1 * inverse_frequencies(config)
        factor = attention_factor(config.rope_scaling)
        return cls((angle_TP.cos() * factor).to(device), (angle_TP.sin() * factor).to(device))

    def at(self, position_T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows of the integer positions `position_T`, as `(cos_TP, sin_TP)`."""
        return self.cos_TP[position_T], self.sin_TP[position_T]


def inverse_frequencies(config: ModelConfig) -> torch.Tensor:
    """Radians per position of each pair, fp32 of shape (P,), slow pairs stretched by YaRN's factor."""
    dims, theta, yarn = config.qk_rope_head_dim, config.rope_theta, config.rope_scaling
    period_P = theta ** (torch.arange(0, dims, 2).to(torch.float32) / dims)
    extrapolated_P = 1.0 / period_P
    if yarn is None:
        return extrapolated_P
    interpolated_P = 1.0 / (yarn.factor * period_P)
    keep_P = 1 - _ramp(yarn, dims=dims, theta=theta)
    return interpolated_P * (1 - keep_P) + extrapolated_P * keep_P


def plain_rotations(width: int, theta: float, positions: int) -> torch.Tensor:
    """Rotations of positions 0, 1, … without YaRN, as complex numbers (positions, `width` / 2)."""
    turn_P = theta ** -(torch.arange(0, width, 2, dtype=torch.float32) / width)
    angle_TP = torch.arange(positions, dtype=torch.float32).unsqueeze(1) * turn_P
    return torch.polar(torch.ones_like(angle_TP), angle_TP)


def softmax_scale(config: ModelConfig) -> float:
    """What attention scores are multiplied by: head width^-½, times YaRN's correction squared."""
    scale = float(config.qk_head_dim**-0.5)
    yarn = config.rope_scaling
    if yarn is not None and yarn.mscale_all_dim:
        scale *= _mscale(yarn.factor, yarn.mscale_all_dim) ** 2
    return scale


def attention_factor(yarn: YarnConfig | None) -> float:
    """What cosines and sines are multiplied by: 1 when mscale equals mscale_all_dim, as in V2 and V3."""
    if yarn is None:
        return 1.0
    if yarn.attention_factor is not None:
        return yarn.attention_factor
    if yarn.mscale and yarn.mscale_all_dim:
        return _mscale(yarn.factor, yarn.mscale) / _mscale(yarn.factor, yarn.mscale_all_dim)
    return _mscale(yarn.factor, 1.0)


def apply_rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotate the last dimension R of `x`, pairs (0, 1), (2, 3), …; all first halves come first in the result.

    `cos` and `sin` end in P and must broadcast against `x` without its last dimension: for `x_THR` pass
    `cos_TP[:, None]`. The result has the dtype of `x`.
    """
    even, odd = x[..., 0::2], x[..., 1::2]
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat([even * cos - odd * sin, odd * cos + even * sin], dim=-1)


def _mscale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _ramp(yarn: YarnConfig, *, dims: int, theta: float) -> torch.Tensor:
    """0 for pairs that turn often enough to be kept, 1 for those to be stretched, linear between: (P,)."""

    def pair_turning(rotations: float) -> float:
        span = yarn.original_max_position_embeddings / (rotations * 2 * math.pi)
        return dims * math.log(span) / (2 * math.log(theta))

    low, high = pair_turning(yarn.beta_fast), pair_turning(yarn.beta_slow)
    if yarn.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    if low == high:
        high += 0.001  # the ramp becomes a step instead of 0 / 0
    pair_P = torch.arange(dims // 2, dtype=torch.float32)
    return torch.clamp((pair_P - low) / (high - low), 0, 1)
