"""Tests for figures of two routings on the same material."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 2000
_SEED = 11


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and where 95% of the bootstrap's means lie."""

    mean: float
    low: float
    high: float


def mean_interval(sum_W: NDArray[np.float64], count_W: NDArray[np.int64]) -> Interval:
    """The mean per token of a quantity that is known by window.

    Windows are resampled (paired percentile bootstrap, Efron 1979): tokens of one text are not independent.
    """
    drawn_RW = np.random.default_rng(_SEED).integers(0, len(sum_W), size=(_RESAMPLES, len(sum_W)))
    means_R = sum_W[drawn_RW].sum(1) / count_W[drawn_RW].sum(1)
    low, high = np.quantile(means_R, (0.025, 0.975))
    return Interval(float(sum_W.sum() / count_W.sum()), float(low), float(high))


def mcnemar(lost: int, won: int) -> float:
    """Two-sided exact p-value (McNemar 1947) that tasks solved by one side alone fall evenly on both: `lost`
    by the first alone, `won` by the second alone.
    """
    count = lost + won
    tail = sum(math.comb(count, one) for one in range(min(lost, won) + 1)) / 2**count
    return min(1.0, 2.0 * float(tail))
