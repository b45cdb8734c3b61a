"""Random numbers as a function of a request's seed and the number of its token.

Nothing is carried from step to step: a request that is computed again after losing its pages, or whose tokens
are verified several at a time, draws the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def uniform(seed: int, index: int) -> float:
    """The `index`-th number in [0, 1) of the stream `seed`, with 24 random bits so that fp32 holds it
    exactly.
    """
    return float(uniforms([seed], [index])[0])


def uniforms(seeds: Sequence[int], indices: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """`uniform` of each seed with its index."""
    stream_S = _mixed(np.array([seed & _MASK for seed in seeds], dtype=np.uint64))
    place_S = np.array(indices, dtype=np.uint64)
    place_S += np.uint64(1)
    place_S *= np.uint64(_GOLDEN)
    stream_S += place_S
    return (_mixed(stream_S) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def _mixed(
    x_S: np.ndarray[tuple[int], np.dtype[np.uint64]],
) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """SplitMix64's output function: every input bit reaches every output bit. Changes `x_S`."""
    x_S ^= x_S >> np.uint64(30)
    x_S *= np.uint64(0xBF58476D1CE4E5B9)
    x_S ^= x_S >> np.uint64(27)
    x_S *= np.uint64(0x94D049BB133111EB)
    x_S ^= x_S >> np.uint64(31)
    return x_S
