"""Random numbers as a function of a request's seed and the number of its token.

Nothing is carried from step to step: a request that is computed again after losing its pages, or whose tokens
are verified several at a time, draws the same tokens.
"""

from __future__ import annotations

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def uniform(seed: int, index: int) -> float:
    """The `index`-th number in [0, 1) of the stream `seed`, with 24 random bits so that fp32 holds it
    exactly.
    """
    return (_mixed(_mixed(seed & _MASK) + (index + 1) * _GOLDEN) >> 40) * 2.0**-24


def _mixed(x: int) -> int:
    """SplitMix64's output function: every input bit reaches every output bit."""
    x &= _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)
