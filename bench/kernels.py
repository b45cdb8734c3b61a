"""Times of the CPU kernels at the shapes of checkpoints M and S, beside the limits measured in the same run:
`python -m bench.kernels [--formats int8 …] [--tokens 1 8 32 512] [--seconds 0.1] [--only NAME]`.

A kernel can not be faster than reading once what it needs, nor than its arithmetic: the limit is the largest
of the times of reading memory, of reading and writing caches, and of arithmetic, each at a rate that this run
measured. Weights and cached context come from memory: each run takes copies that are together larger than
the caches. Where everything stays in the caches, the case's name says so. Medians of repeated runs count for
kernels and for plain torch, the best run for the rates of the limits.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch

from bench.kernel_attention import attention_cases
from bench.kernel_case import Case, Limits, median_s
from bench.kernel_lora import lora_cases
from bench.kernel_products import product_cases
from bench.kernel_tokens import token_cases
from bench.report import Row, compare, report
from inference.models.config import ModelConfig
from inference.models.sizes import SIZES
from moe_ops import native
from moe_ops.linear import FORMATS

_DECODE = ((1, 144), (8, 144), (32, 144), (8, 1024))
_EXPAND = ((512, 0), (512, 512))
_PEER_SHARE = 0.5  # of a kernel's seconds


def main() -> None:
    """Measure and report."""
    options = _options()
    limits = Limits()
    rows = limits.rows()
    with torch.inference_mode():
        for name, case in _cases(options):
            if options.only in case.name:
                rows.append(_row(f"{name} {case.name}", case, limits, options.seconds))
    isa, threads = native.features()["isa"], torch.get_num_threads()
    report("kernels", rows, title=f"CPU kernels: {isa}, {threads} threads")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.kernels")
    parser.add_argument("--formats", nargs="*", choices=FORMATS, default=["int8", "bfloat16", "int4"])
    parser.add_argument("--tokens", nargs="+", type=int, default=[1, 8, 32, 512])
    parser.add_argument("--seconds", type=float, default=0.1, help="of each measurement")
    parser.add_argument("--only", default="", metavar="NAME", help="cases with this in their name")
    return parser.parse_args()


def _cases(options: argparse.Namespace) -> Iterator[tuple[str, Case]]:
    """Names of models and cases: products with M's weights in all formats, the other kernels with int8 ones
    of both.
    """
    for weights in options.formats:
        for case in product_cases(_model("M"), weights, options.tokens):
            yield "M", case
    for name in ("M", "S"):
        config = _model(name)
        for case in attention_cases(config, "int8", decode=_DECODE, expand=_EXPAND, store=options.tokens):
            yield name, case
        batches = (1, 32) if name == "M" else ()  # vocabularies are equal
        for case in token_cases(config, tokens=options.tokens, batches=batches):
            yield name, case
        for case in lora_cases(config, "int8", (1, 8)):
            yield name, case


def _model(name: str) -> ModelConfig:
    return ModelConfig.from_dict(SIZES[name])


def _row(name: str, case: Case, limits: Limits, seconds: float) -> Row:
    return compare(
        name,
        median_s(case.kernel, seconds) * 1e6,
        "µs",
        peer=case.peer_name,
        peer_value=median_s(case.peer, _PEER_SHARE * seconds) * 1e6,
        limit=limits.seconds(case) * 1e6,
        lower_is_better=True,
    )


if __name__ == "__main__":
    main()
