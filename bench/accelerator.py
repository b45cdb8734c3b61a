"""Triton's kernels on a CUDA device: checked against plain torch, then timed beside it and beside the
device's limits, which are measured in the same run.

    python -m bench.accelerator                        # the sizes of DeepSeek-V3, bf16
    TRITON_INTERPRET=1 python -m bench.accelerator     # without a GPU: checks small sizes, times nothing

A limit is the larger of two times: reading once what an operation must read, and its multiplications.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Iterator

import torch

from bench.accelerator_cases import LARGE, SMALL, Case, cases
from bench.report import Row, compare, report

_WARM_UP, _RUNS = 20, 50
_COPY_BYTES, _SQUARE = 1 << 30, 8192


def main() -> int:
    """Exit status 1 when a kernel computed something else than torch."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not torch.cuda.is_available() and not interpreted:
        print("no CUDA device: nothing is measured (TRITON_INTERPRET=1 checks the kernels on the CPU)")
        return 0
    device = torch.device("cpu" if interpreted else "cuda")
    made = list(cases(SMALL if interpreted else LARGE, device))
    wrong = [case.name for case in made if not _agrees(case)]
    for name in wrong:
        print(f"{name}: not what torch computes")
    if not interpreted:
        title = f"{torch.cuda.get_device_name()}, bf16, medians of {_RUNS} runs"
        report("accelerator", list(_rows(made)), title=title)
    return 1 if wrong else 0


def _agrees(case: Case) -> bool:
    found, expected = case.kernel().float(), case.peer().float()
    error = (found - expected).norm() / expected.norm().clamp_min(1e-12)
    print(f"{case.name}: relative error {error:.1e}, allowed {case.tolerance:.0e}")
    return bool(error <= case.tolerance)


def _rows(made: list[Case]) -> Iterator[Row]:
    bandwidth, rate = _bandwidth(), _product_rate()
    yield compare("copy", bandwidth / 1e9, "GB/s")
    yield compare("torch bf16 product", rate / 1e12, "TFLOP/s")
    for case in made:
        limit = max(case.bytes_read / bandwidth, case.operations / rate)
        yield compare(
            case.name,
            _seconds(case.kernel) * 1e6,
            "µs",
            peer="plain torch",
            peer_value=_seconds(case.peer) * 1e6,
            limit=limit * 1e6,
            lower_is_better=True,
        )


def _bandwidth() -> float:
    """Bytes per second, read and written, of a copy that no cache holds."""
    source = torch.empty(_COPY_BYTES, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * _COPY_BYTES / _seconds(lambda: target.copy_(source))


def _product_rate() -> float:
    a, b = torch.randn(2, _SQUARE, _SQUARE, device="cuda", dtype=torch.bfloat16)
    return 2 * _SQUARE**3 / _seconds(lambda: torch.mm(a, b))


def _seconds(work: Callable[[], object]) -> float:
    """The median of one run's time on the device, with the level-2 cache overwritten before each."""
    flush = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    for _ in range(_WARM_UP):
        work()
    times: list[float] = []
    for _ in range(_RUNS):
        flush.zero_()
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        work()
        ended.record()
        torch.cuda.synchronize()
        times.append(began.elapsed_time(ended) / 1e3)
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
