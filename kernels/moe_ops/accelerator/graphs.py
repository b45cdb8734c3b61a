"""CUDA graphs of decode steps: one for each bucket of rows, captured once and replayed.

A graph's tensors stay where they are, so a step's inputs are copied to them and filled up to the bucket's
size with rows that harm nothing: the caller says whether such a row has a number of its own in an input (a
slot that belongs to nobody) or the first row's, so that it touches no experts but that row's.

Unmeasured: choice of bucket, filling and results are tested on the CPU; capture and replay have never run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from moe_ops.accelerator.buckets import bucket_for, bucket_sizes, fill_

Inputs = Mapping[str, torch.Tensor]
Outputs = tuple[torch.Tensor, ...]
StepFn = Callable[[Inputs], Outputs]
_WARM_UP_RUNS = 3  # allocations, tuning of tiles and library handles happen before capture


@dataclass(frozen=True, slots=True)
class StepInput:
    """One input of a step: its shape without rows, and its type. Rows that fill up have the number `padding`,
    or are like the first one (`repeat`). `warm` fills the input with what is usual, for programs to be tuned.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    padding: int = 0
    repeat: bool = False
    warm: Callable[[torch.Tensor], object] | None = None


class Replay(Protocol):
    """Something captured that can be run again."""

    def __call__(self) -> None: ...


class Capture(Protocol):
    """Captures `work` and returns what runs it again."""

    def __call__(self, work: Callable[[], None]) -> Replay: ...


def rerun(work: Callable[[], None]) -> Replay:
    """A `Capture` for where nothing can be captured, as in Triton's interpreter: the work is done again."""
    return work


class CudaCapture:
    """Captures on the current CUDA device; all graphs share one pool of memory."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, work: Callable[[], None]) -> Replay:
        """Warm up on a side stream, as capture demands, then capture."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP_RUNS):
                work()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            work()
        return graph.replay


@dataclass(slots=True)
class _Captured:
    inputs: dict[str, torch.Tensor]
    outputs: list[torch.Tensor]
    replay: Replay


class DecodeGraphs:
    """Runs `step` through graphs. Its results must have a row for each row of its inputs."""

    def __init__(
        self,
        step: StepFn,
        *,
        inputs: Mapping[str, StepInput],
        largest: int,
        device: torch.device,
        capture: Capture,
    ) -> None:
        self._step = step
        self._inputs = dict(inputs)
        self._sizes = bucket_sizes(largest)
        self._device = device
        self._capture = capture
        self._captured: dict[int, _Captured] = {}

    def capture_all(self) -> None:
        """Capture every bucket now, largest first, so that the smaller ones reuse its memory."""
        for size in reversed(self._sizes):
            self._of(size)

    def run(self, inputs: Inputs) -> Outputs:
        """The step's results for `inputs`, which may be on the host; valid until the next call. Without a
        graph for more rows than the largest bucket has. Raises `ValueError` for inputs that do not fit what
        was declared.
        """
        if inputs.keys() != self._inputs.keys():
            raise ValueError(f"inputs {sorted(inputs)}: expected {sorted(self._inputs)}")
        counts = {len(tensor) for tensor in inputs.values()}
        if len(counts) != 1:
            raise ValueError(f"inputs of different numbers of rows: {sorted(counts)}")
        (count,) = counts
        size = bucket_for(count, self._sizes)
        if size is None:
            return self._step({name: tensor.to(self._device) for name, tensor in inputs.items()})
        captured = self._of(size)
        for name, tensor in inputs.items():
            one = self._inputs[name]
            fill_(captured.inputs[name], tensor, padding=one.padding, repeat=one.repeat)
        captured.replay()
        return tuple(output[:count] for output in captured.outputs)

    def _of(self, size: int) -> _Captured:
        if size not in self._captured:
            self._captured[size] = self._capture_size(size)
        return self._captured[size]

    def _capture_size(self, size: int) -> _Captured:
        buffers = {
            name: torch.full((size, *one.shape), one.padding, dtype=one.dtype, device=self._device)
            for name, one in self._inputs.items()
        }
        for name, one in self._inputs.items():
            if one.warm is not None:
                one.warm(buffers[name])
        outputs: list[torch.Tensor] = []

        def work() -> None:
            outputs[:] = self._step(buffers)

        return _Captured(buffers, outputs, self._capture(work))
