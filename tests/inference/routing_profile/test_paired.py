from __future__ import annotations

import numpy as np
import pytest

from inference.routing_profile.paired import mcnemar, mean_interval


def test_the_interval_lies_around_the_mean_per_token() -> None:
    rng = np.random.default_rng(1)
    count_W = rng.integers(50, 100, size=200)
    sum_W = count_W * 0.3 + rng.normal(0, 5, size=200)
    interval = mean_interval(sum_W, count_W)
    assert interval.mean == pytest.approx(sum_W.sum() / count_W.sum())
    assert interval.low < interval.mean < interval.high
    standard_error = 5 / np.sqrt(200) / 75
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * standard_error, rel=0.3)


def test_equal_sides_have_no_difference() -> None:
    interval = mean_interval(np.zeros(4), np.array([3, 1, 4, 1]))
    assert (interval.mean, interval.low, interval.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("lost", "won", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (3, 3, 1.0), (5, 0, 2 / 32), (0, 5, 2 / 32), (8, 2, 2 * 56 / 1024)],
)
def test_mcnemar_is_the_two_sided_binomial(lost: int, won: int, p: float) -> None:
    assert mcnemar(lost, won) == pytest.approx(p)
