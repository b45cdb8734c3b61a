"""What `bench.kernels` times, and the limits of the machine that it is held against."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle
from typing import TypeVar

import torch

from bench.engine_limits import arithmetic
from bench.report import Row, compare
from moe_ops import native
from moe_ops.linear import PackedMatrix, WeightFormat

Kept = TypeVar("Kept")
Work = Callable[[], tuple[torch.Tensor, ...]]
BEYOND_CACHES = 96 << 20  # bytes
_SECOND_LEVEL, _THIRD_LEVEL = 768 << 10, 8 << 20  # what two cores hold of their own, and in what they share
_RUNS_LEAST = 3
# products of one instruction and cycle with int4 weights, as a multiple of int8's, by instruction set: bytes
# are summed in pairs before they are widened where there is no VPDPBUSD
_INT4 = {"avx2": 2, "avx512": 2}


@dataclass(frozen=True, slots=True)
class Case:
    """A kernel and plain torch on the same data; both return what they wrote.

    `read` are the bytes that must come from memory: weights and cached context, of which each run takes other
    ones, together more than the caches hold. `cached` are those that the operation before has left in the
    caches, read or written. `operations` are multiplications and additions of floats, `products` those with
    weights of the format `weights`.
    """

    name: str
    kernel: Work
    peer: Work
    read: float = 0.0
    cached: float = 0.0
    operations: float = 0.0
    products: float = 0.0
    weights: WeightFormat = "float32"
    peer_name: str = "plain torch"


class Limits:
    """Rates of this machine on all threads, each the best of many runs."""

    def __init__(self) -> None:
        self._memory = _memory_rate()
        self._third = max(self._memory, _cache_rate(_THIRD_LEVEL))
        self._second = max(self._third, _cache_rate(_SECOND_LEVEL))
        self._floats, self._codes = arithmetic("float32"), arithmetic("int8")
        self._halves = arithmetic("bfloat16")

    def seconds(self, case: Case) -> float:
        """The largest of three times: of reading memory, of reading and writing caches, of arithmetic."""
        arithmetic_s = case.operations / self._floats + case.products / self._rate(case.weights)
        return max(case.read / self._memory, case.cached / self._cache(case.cached), arithmetic_s)

    def rows(self) -> list[Row]:
        """The rates themselves."""
        return [
            compare("memory read", self._memory / 1e9, "GB/s"),
            compare("third-level cache read", self._third / 1e9, "GB/s"),
            compare("second-level cache read", self._second / 1e9, "GB/s"),
            compare("fp32 operations", self._floats / 1e9, "GFLOP/s"),
            compare("bf16 operations", self._halves / 1e9, "GFLOP/s"),
            compare("8-bit operations", self._codes / 1e9, "GOP/s"),
        ]

    def _rate(self, weights: WeightFormat) -> float:
        if weights == "bfloat16":
            return self._halves
        if weights == "int4":
            return self._codes * _INT4.get(str(native.features()["isa"]), 1)
        return self._codes if weights == "int8" else self._floats

    def _cache(self, size: float) -> float:
        if size <= _SECOND_LEVEL:
            return self._second
        return self._third if size <= _THIRD_LEVEL else self._memory


def turns(copy: Callable[[], Kept], nbytes: float) -> Iterator[Kept]:
    """Copies of what has `nbytes`, in turn without end: more than the caches hold together."""
    return cycle([copy() for _ in range(max(2, int(-(-BEYOND_CACHES // nbytes))))])


def matrix_copy(m: PackedMatrix) -> PackedMatrix:
    """The same in other memory."""
    return replace(m, data=m.data.clone(), scales=m.scales.clone())


def median_s(work: Callable[[], object], seconds: float) -> float:
    """Seconds of the middle one of the runs that fit into `seconds`, after one that does not count."""
    return statistics.median(_times(work, seconds))


def _times(work: Callable[[], object], seconds: float) -> list[float]:
    work()
    found: list[float] = []
    end = time.perf_counter() + seconds
    while len(found) < _RUNS_LEAST or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return found


def _memory_rate() -> float:
    """Bytes per second of sums over 4 MB each, of a buffer beyond the caches."""
    parts = torch.ones(BEYOND_CACHES).split(1 << 20)
    taken = cycle(parts)
    size: int = parts[0].nbytes
    return size / min(_times(lambda: next(taken).sum(), 1.0))


def _cache_rate(size: int) -> float:
    """Bytes per second of a sum over what a cache of `size` bytes holds, its start not counted: from how much
    longer it takes than one over a quarter of that.
    """
    buffer = torch.ones(size // 4)
    quarter = buffer[: len(buffer) // 4].clone()
    longer = min(_times(buffer.sum, 0.5)) - min(_times(quarter.sum, 0.5))
    return (buffer.nbytes - quarter.nbytes) / max(longer, 1e-9)
