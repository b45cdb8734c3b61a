"""Times of the CPU kernels at the shapes of checkpoint M, beside the limits measured in the same run:
`python -m bench.kernels [--formats int8 …] [--tokens 1 8 32 512] [--seconds 0.3]`.

A kernel can not be faster than reading its weights once, nor than making its products. Weights come from
memory: each run takes copies that are together larger than the caches. The fastest of many short runs counts,
for limits as for kernels, so that other work on the machine matters little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle

import torch

from bench.report import Row, compare, report
from moe_ops import native
from moe_ops.grouped_mlp import PackedExperts, pack_experts, packed_mlp_
from moe_ops.linear import FORMATS, PackedMatrix, WeightFormat, linear, pack_matrix

# outputs × inputs
MATRICES = {
    "q_proj": (3072, 1024),
    "kv_a": (576, 1024),
    "kv_b": (4096, 512),
    "o_proj": (1024, 2048),
    "lm_head": (32000, 1024),
}
HIDDEN, WIDTH, EXPERTS, TOP_K, SHARED = 1024, 768, 32, 4, 2
_BEYOND_CACHES = 96 << 20
_HEAD_TOKENS = 64  # the head meets the last token of each sequence only
# products of one instruction and cycle, as a multiple of fp32's, by instruction set
_PRODUCTS: dict[str, dict[WeightFormat, int]] = {
    "portable": {},
    "avx2": {"int8": 2, "int4": 4},  # VPMADDWD, VPMADDUBSW, each with an addition beside it
    "avx512": {"int8": 1, "int4": 2},  # the same ones, while fp32 has twice the width
    "vnni": {"int8": 4, "int4": 4},  # VPDPBUSD
}


class Limits:
    """Seconds that reading and multiplying take at best, from rates measured once."""

    def __init__(self) -> None:
        self._read = _read_bandwidth()
        self._products = _fp32_products()
        self._factors = _PRODUCTS[str(native.features()["isa"])]

    def seconds(self, weight_format: WeightFormat, *, nbytes: float, products: float) -> float:
        """The larger of both times; a product is a multiplication and an addition."""
        rate = self._products * self._factors.get(weight_format, 1)
        return max(nbytes / self._read, 2 * products / rate)

    def rows(self) -> list[Row]:
        """The rates themselves."""
        return [
            compare("memory read", self._read / 1e9, "GB/s"),
            compare("fp32 products", self._products / 1e9, "GFLOP/s"),
        ]


def linear_rows(
    weight_format: WeightFormat, tokens: Sequence[int], limits: Limits, seconds: float
) -> Iterator[Row]:
    """One row for each matrix and number of tokens."""
    for name, (outputs, inputs) in MATRICES.items():
        copies = _copies(pack_matrix(torch.randn(outputs, inputs), weight_format))
        for count in tokens:
            if name == "lm_head" and count > _HEAD_TOKENS:
                continue
            x_TI, out_TO = torch.randn(count, inputs), torch.empty(count, outputs)
            best = _best_s(partial(_multiply_next, x_TI, cycle(copies), out_TO), seconds)
            least = limits.seconds(weight_format, nbytes=copies[0].nbytes, products=count * outputs * inputs)
            yield _row(f"{weight_format} {name}, {count} tokens", best, least)


def _multiply_next(x_TI: torch.Tensor, turns: Iterator[PackedMatrix], out_TO: torch.Tensor) -> None:
    linear(x_TI, next(turns), out=out_TO)


def mlp_rows(
    weight_format: WeightFormat, tokens: Sequence[int], limits: Limits, seconds: float
) -> Iterator[Row]:
    """One row for each number of tokens, each of which chooses experts at random."""
    count = EXPERTS + SHARED
    weights = torch.randn(count, 2 * WIDTH, HIDDEN), torch.randn(count, HIDDEN, WIDTH)
    experts = pack_experts(*weights, weight_format)
    nbytes = (experts.gate_up.nbytes + experts.down.nbytes) / count
    for number in tokens:
        x_TD, out_TD = torch.randn(number, HIDDEN), torch.zeros(number, HIDDEN)
        chosen = [torch.rand(number, EXPERTS).topk(TOP_K).indices for _ in range(16)]
        used = sum(experts_TK.unique().numel() for experts_TK in chosen) / len(chosen) + SHARED
        run = _mlp_run(experts, x_TD, out_TD, chosen)
        products = number * (TOP_K + SHARED) * 3 * HIDDEN * WIDTH
        least = limits.seconds(weight_format, nbytes=used * nbytes, products=products)
        yield _row(
            f"{weight_format} grouped MLP, {number} tokens", _mean_best_s(run, len(chosen), seconds), least
        )


def _mlp_run(
    experts: PackedExperts, x_TD: torch.Tensor, out_TD: torch.Tensor, chosen: Sequence[torch.Tensor]
) -> Callable[[int], object]:
    weights_TK = torch.rand(len(x_TD), TOP_K)
    return lambda turn: packed_mlp_(
        out_TD, x_TD, experts=experts, weights_TK=weights_TK, experts_TK=chosen[turn], shared=SHARED
    )


def _read_bandwidth() -> float:
    """Bytes per second of sums over 4 MB each, of a buffer beyond the caches."""
    parts = torch.ones(_BEYOND_CACHES).split(1 << 20)
    turns = cycle(parts)
    size: int = parts[0].nbytes
    return size / _best_s(lambda: next(turns).sum(), 1.0)


def _fp32_products() -> float:
    """Multiplications and additions per second of torch or of ours, whichever is faster."""
    x_TI, weight_OI, out_TO = torch.randn(96, 512), torch.randn(512, 512), torch.empty(96, 512)
    matrix = pack_matrix(weight_OI, "float32")
    best = min(
        _best_s(lambda: linear(x_TI, matrix, out=out_TO), 1.0),
        _best_s(lambda: torch.mm(x_TI, weight_OI, out=out_TO), 1.0),
    )
    return 2 * x_TI.numel() * len(weight_OI) / best


def _row(metric: str, best_s: float, least_s: float) -> Row:
    return compare(metric, best_s * 1e6, "µs", limit=least_s * 1e6, lower_is_better=True)


def _copies(matrix: PackedMatrix) -> list[PackedMatrix]:
    """As many as do not fit the caches together, two at least."""
    m = matrix
    count = max(2, -(-_BEYOND_CACHES // m.nbytes))
    return [
        PackedMatrix(m.format, m.outputs, m.inputs, m.data.clone(), m.scales.clone(), m.activations)
        for _ in range(count)
    ]


def _best_s(work: Callable[[], object], seconds: float) -> float:
    """Seconds of the fastest run among those that fit into `seconds`, three at least."""
    return _mean_best_s(lambda _: work(), 1, seconds)


def _mean_best_s(work: Callable[[int], object], turns: int, seconds: float) -> float:
    """The mean over `turns` kinds of run of the fastest of each kind."""
    best = [float("inf")] * turns
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < 3 or time.perf_counter() < end:
        for turn in range(turns):
            start = time.perf_counter()
            work(turn)
            best[turn] = min(best[turn], time.perf_counter() - start)
        rounds += 1
    return sum(best) / turns


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="Time the CPU kernels")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=["int8", "bfloat16", "int4"])
    parser.add_argument("--tokens", nargs="+", type=int, default=[1, 8, 32, 512])
    parser.add_argument("--seconds", type=float, default=0.3, help="of each measurement")
    options = parser.parse_args()
    limits = Limits()
    rows = limits.rows()
    with torch.inference_mode():
        for weight_format in options.formats:
            rows += linear_rows(weight_format, options.tokens, limits, options.seconds)
            rows += mlp_rows(weight_format, options.tokens, limits, options.seconds)
    isa, threads = native.features()["isa"], torch.get_num_threads()
    report("kernels", rows, title=f"CPU kernels: {isa}, {threads} threads")


if __name__ == "__main__":
    main()
