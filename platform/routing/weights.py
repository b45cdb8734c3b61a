"""Integer arithmetic of the draw: a weight that halves with every ``half_cost_ppm`` of extra cost."""

from __future__ import annotations

import math

_STEPS_LOG2 = 8
_STEPS = 1 << _STEPS_LOG2
_ONE_BITS = 32
_PRECISION_BITS = 96


def _halving_table() -> tuple[int, ...]:
    """``2^32 × 2^(-i/256)`` for i = 0..256, by exact integer square roots: the same on every machine."""
    one = 1 << _PRECISION_BITS
    step = one >> 1
    for _ in range(_STEPS_LOG2):
        step = math.isqrt(step << _PRECISION_BITS)
    values, value = [], one
    for _ in range(_STEPS):
        values.append(value >> (_PRECISION_BITS - _ONE_BITS))
        value = (value * step) >> _PRECISION_BITS
    return (*values, 1 << (_ONE_BITS - 1))


_TABLE = _halving_table()


def draw_weight(extra_cost_ppm: int, half_cost_ppm: int) -> int:
    """Weight of a candidate costing ``extra_cost_ppm`` ≥ 0 more than the cheapest; never grows with cost.

    With ``half_cost_ppm`` of 0 only the cheapest can be drawn.
    """
    if extra_cost_ppm == 0:
        return 1 << _ONE_BITS
    if half_cost_ppm <= 0:
        return 0
    halvings, rest = divmod(extra_cost_ppm, half_cost_ppm)
    if halvings > _ONE_BITS:
        return 0
    return _TABLE[rest * _STEPS // half_cost_ppm] >> halvings


def draw_index(weights: list[int], number: int) -> int:
    """The index that ``number`` (uniform, far larger than the sum of weights) falls on."""
    point = number % sum(weights)
    for index, weight in enumerate(weights):
        if point < weight:
            return index
        point -= weight
    raise AssertionError("unreachable: the point lies below the sum of all weights")
