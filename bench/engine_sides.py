"""The sides of the engine bench, and how each is started."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

import torch

from bench.engine_rounds import Timed
from bench.peers.llama import GgufFormat, LlamaFolder, LlamaSide, convert
from bench.peers.pack import Packed, packed_anew
from bench.peers.process import ProcessSide, SideError
from bench.peers.vllm import VllmFolder, vllm_side

LOGS = Path("build/bench/logs")
PACKED = Path("build/bench/packed")
OUR_WEIGHTS = ("int8", "bfloat16")
# The forms that are tried when none is named: without AVX-512 products in bf16 are slow.
VLLM_FORMS = {"avx512": ("bfloat16/compiled",), "others": ("float32/eager",)}
HF_FORMS = {
    "avx512": ("bfloat16/grouped_mm", "float32/grouped_mm", "bfloat16/eager"),
    "others": ("float32/grouped_mm", "float32/batched_mm", "float32/eager"),
}
# A work may take so many times longer than foretold before its side is given up.
_PATIENCE = 6.0

Start = Callable[[ExitStack], Timed]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a side besides its rates: peak memory, and seconds of loading and of the whole start
    where it is a process that stays.
    """

    peak_bytes: int
    load_s: float | None = None
    start_s: float | None = None
    more: Mapping[str, float] | None = None


def our_sides(model: Path, options: argparse.Namespace) -> dict[str, tuple[Packed, Start]]:
    """Our engine once per format of weights, which are packed now."""
    sides: dict[str, tuple[Packed, Start]] = {}
    for weights in options.weights or OUR_WEIGHTS:
        folder = PACKED.resolve() / f"{model.name}-{weights}"
        packed = packed_anew(model, weights, folder, log=LOGS / f"pack-{model.name}-{weights}.log")
        sides[f"ours {weights}"] = packed, partial(_ours, model, weights, options, folder)
    return sides


def llama_sides(model: Path, options: argparse.Namespace) -> dict[str, Start]:
    """llama.cpp with 8-bit and with 16-bit weights. They hold memory only while they work."""
    peers = LlamaFolder(options.peers.resolve())
    return {
        f"llama.cpp {kind}": partial(_llama, peers, model, kind, options) for kind in get_args(GgufFormat)
    }


def vllm_sides(model: Path, options: argparse.Namespace) -> dict[str, Start]:
    """vLLM in all forms asked for, or those that suit the processor."""
    peers = VllmFolder(options.peers.resolve())
    forms = [form for form in options.vllm or VLLM_FORMS[_processor()] if form != "none"]
    return {f"vLLM {form}": partial(_vllm, peers, model, form, options) for form in forms}


def hf_sides(model: Path, options: argparse.Namespace) -> dict[str, Start]:
    """transformers in all forms asked for, or those that suit the processor."""
    forms = [form for form in options.hf or HF_FORMS[_processor()] if form != "none"]
    return {f"transformers {form}": partial(_hf, model, form, options) for form in forms}


def facts_of(side: Timed) -> Facts:
    """To be asked while the side is still there."""
    if isinstance(side, ProcessSide):
        return Facts(side.peak_bytes, side.load_s, side.start_s, side.facts)
    return Facts(side.peak_bytes)


def _processor() -> str:
    return "avx512" if torch.backends.cpu.get_cpu_capability() == "AVX512" else "others"


def _ours(model: Path, weights: str, options: argparse.Namespace, folder: Path, stack: ExitStack) -> Timed:
    arguments = [str(model), weights, str(options.threads), str(folder)]
    log = LOGS / f"ours-{model.name}-{weights}.log"
    return stack.enter_context(ProcessSide("bench.peers.ours", arguments, log=log, threads=options.threads))


def _llama(
    peers: LlamaFolder, model: Path, kind: GgufFormat, options: argparse.Namespace, stack: ExitStack
) -> Timed:
    if not peers.ready:
        raise SideError("not built (python -m bench.peers setup)")
    return stack.enter_context(
        closing(LlamaSide(peers, convert(peers, model, kind), threads=options.threads))
    )


def _vllm(peers: VllmFolder, model: Path, form: str, options: argparse.Namespace, stack: ExitStack) -> Timed:
    if not peers.ready:
        raise SideError("not installed (python -m bench.peers setup)")
    dtype, mode = form.split("/")
    log = LOGS / f"vllm-{model.name}-{dtype}-{mode}.log"
    return stack.enter_context(
        vllm_side(
            peers,
            model,
            dtype=dtype,
            mode=mode,
            threads=options.threads,
            log=log,
            limit_s=_PATIENCE * options.limit,
        )
    )


def _hf(model: Path, form: str, options: argparse.Namespace, stack: ExitStack) -> Timed:
    dtype, experts = form.split("/")
    log = LOGS / f"transformers-{model.name}-{dtype}-{experts}.log"
    arguments = [str(model), dtype, experts, str(options.threads)]
    return stack.enter_context(
        ProcessSide(
            "bench.peers.hf",
            arguments,
            log=log,
            threads=options.threads,
            limit_s=_PATIENCE * options.limit,
        )
    )
