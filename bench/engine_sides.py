"""The sides of the engine bench: how each is started, and how rounds go through them in turn."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Protocol, get_args

from bench.peers.llama import GgufFormat, LlamaFolder, LlamaSide, convert
from bench.peers.process import ProcessSide, SideError
from bench.peers.vllm import VllmFolder, vllm_side
from bench.peers.work import Work

LOGS = Path("build/bench/logs")
OUR_WEIGHTS = ("int8", "bfloat16")
HF_FORMS = ("float32/grouped_mm", "float32/batched_mm", "float32/eager", "bfloat16/grouped_mm")
# transformers needs up to seconds for a step: as many steps as tell its rate
_HF_NEW = 8
# A first, short try this many times slower than another of the same group is not repeated.
_HOPELESS = 4.0


class Timed(Protocol):
    """A side as the runner sees it."""

    @property
    def peak_bytes(self) -> int: ...

    def rate(self, work: Work) -> float: ...


Start = Callable[[ExitStack], Timed]


def our_sides(model: Path, options: argparse.Namespace) -> dict[str, Start]:
    """Our engine once per format of weights."""
    return {
        f"ours {weights}": partial(_ours, model, weights, options.threads)
        for weights in options.weights or OUR_WEIGHTS
    }


def peer_sides(model: Path, options: argparse.Namespace) -> dict[str, Start]:
    """Every peer in every form asked for, whether it is there or not."""
    threads: int = options.threads
    peers: Path = options.peers.resolve()
    sides: dict[str, Start] = {
        f"llama.cpp {kind}": partial(_llama, LlamaFolder(peers), model, kind, threads)
        for kind in get_args(GgufFormat)
    }
    if options.vllm != "none":
        sides[f"vLLM {options.vllm}"] = partial(_vllm, VllmFolder(peers), model, options.vllm, threads)
    for form in options.hf or HF_FORMS:
        if form != "none":
            sides[f"transformers {form}"] = partial(_hf, model, form, threads)
    return sides


class Runner:
    """Times sides in turn and keeps every sample: `samples[side, work]`."""

    def __init__(self, sides: Mapping[str, Timed]) -> None:
        self.sides = dict(sides)
        self.samples: dict[tuple[str, Work], list[float]] = {}
        self.failed: dict[str, str] = {}

    def warm_up(self, works: Iterable[Work]) -> None:
        """A short work of each kind; transformers' hopeless forms are dropped."""
        short = [Work(work.kind, work.batch, 16, 2) for work in works if work.batch == 1]
        rates = {name: [self._rate(name, work) for work in short] for name in list(self.sides)}
        family = {name: values for name, values in rates.items() if name.startswith("transformers ")}
        best = [max(column) for column in zip(*family.values(), strict=True)] if family else []
        for name, values in family.items():
            if all(value * _HOPELESS < top for value, top in zip(values, best, strict=True)):
                self.failed.setdefault(name, f"more than {_HOPELESS:g} times slower than another form")

    def round(self, works: Iterable[Work]) -> None:
        """Each work once by each side."""
        for work in works:
            for name in self.sides:
                if name in self.failed:
                    continue
                began = time.perf_counter()
                rate = self._rate(name, _short_for(name, work))
                if rate:
                    self.samples.setdefault((name, work), []).append(rate)
                seconds = time.perf_counter() - began
                print(f"  {work.name:22} {name:28} {rate:9.1f} tok/s in {seconds:.1f} s", flush=True)

    def median(self, name: str, work: Work) -> float | None:
        samples = self.samples.get((name, work))
        return statistics.median(samples) if samples else None

    def _rate(self, name: str, work: Work) -> float:
        if name in self.failed:
            return 0.0
        try:
            return self.sides[name].rate(work)
        except SideError as error:
            self.failed[name] = str(error)
            return 0.0


def _short_for(name: str, work: Work) -> Work:
    """The same work with fewer new tokens around the same context, for sides that are slow."""
    if not name.startswith("transformers ") or work.kind == "prefill" or work.new <= _HF_NEW:
        return work
    return Work(work.kind, work.batch, work.prompt + (work.new - _HF_NEW) // 2, _HF_NEW)


def _ours(model: Path, weights: str, threads: int, stack: ExitStack) -> Timed:
    arguments = [str(model), weights, str(threads)]
    log = LOGS / f"ours-{model.name}-{weights}.log"
    return stack.enter_context(ProcessSide("bench.peers.ours", arguments, log=log, threads=threads))


def _llama(peers: LlamaFolder, model: Path, kind: GgufFormat, threads: int, stack: ExitStack) -> Timed:
    if not peers.ready:
        raise SideError("not built (python -m bench.peers setup)")
    return stack.enter_context(closing(LlamaSide(peers, convert(peers, model, kind), threads=threads)))


def _vllm(peers: VllmFolder, model: Path, form: str, threads: int, stack: ExitStack) -> Timed:
    if not peers.ready:
        raise SideError("not installed (python -m bench.peers setup)")
    dtype, mode = form.split("/")
    log = LOGS / f"vllm-{model.name}-{dtype}-{mode}.log"
    return stack.enter_context(vllm_side(peers, model, dtype=dtype, mode=mode, threads=threads, log=log))


def _hf(model: Path, form: str, threads: int, stack: ExitStack) -> Timed:
    dtype, experts = form.split("/")
    log = LOGS / f"transformers-{model.name}-{dtype}-{experts}.log"
    arguments = [str(model), dtype, experts, str(threads)]
    return stack.enter_context(ProcessSide("bench.peers.hf", arguments, log=log, threads=threads))
