"""Even intervals between tokens: the fixed tier beside dynamic routing, under the Azure chat trace.

`python -m bench.fixed_routing --trace azure_llm_trace_conv.csv.gz [--model DIR] [--seconds N] [--pair]`

The tier is a pool profile of half the experts, prompts read in small chunks, and tokens handed on at a beat
(`EngineConfig.paced`). Beside it: dynamic routing as the engine runs by default, and each of the tier's two
parts alone, unless only the `--pair` is wanted. Every engine runs in its own process; times are those at
which its front has the tokens. First each is saturated, which gives its capacity; then all of them get the
same arrivals, at 50% and 80% of what the tier can take.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import tempfile
from collections.abc import Sequence as Items
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bench.azure import ChatRequest, chat_read
from bench.picture import picture
from bench.report import FOLDER, Row, compare, report
from bench.trace_client import Client, Load
from inference.engine.remote import RemoteEngine
from inference.engine.types import EngineConfig
from inference.models import loader
from inference.routing.profile import RoutingProfile, profile_load
from inference.routing_profile.making import observe, profile_make
from inference.routing_profile.windows import routed_model, windows_cut
from inference.tokenizer import Tokenizer
from inference.train.corpus import iter_corpus

NANO = Path(loader.__file__).parent / "nano"
LOADS = (0.5, 0.8)
TARGET = 1.1
SLOTS = 8  # requests that run together: as many as are computed in constant shape
CHUNK = 48  # tokens of prompts in a step of the tier: the trace has 5.5 for each token of an answer
_MADE_FROM = 16  # windows
_CORPUS = 400_000  # characters


@dataclass(frozen=True, slots=True)
class Variant:
    """One engine: which routing, and whether its tokens keep a beat."""

    name: str
    fixed: bool
    paced: bool


TIER = Variant("fixed tier", fixed=True, paced=True)
DYNAMIC = Variant("dynamic", fixed=False, paced=False)
VARIANTS = (
    TIER,
    DYNAMIC,
    Variant("fixed, no beat", fixed=True, paced=False),
    Variant("dynamic on a beat", fixed=False, paced=True),
)


@dataclass(frozen=True, slots=True)
class Material:
    """What all engines are given."""

    model: Path
    config: EngineConfig
    profile: RoutingProfile
    text: tuple[int, ...]
    trace: tuple[ChatRequest, ...]


@dataclass(frozen=True, slots=True)
class Seconds:
    """Lengths of the runs that saturate an engine, and of those that replay the trace."""

    saturated: float
    replayed: float


@dataclass(frozen=True, slots=True)
class Measured:
    """One engine: tokens a second when saturated, its loads, experts touched per layer and step."""

    variant: Variant
    capacity: float
    loads: tuple[Load, ...]
    experts: float


def main(arguments: Items[str] | None = None) -> None:
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as folder:
        material = _material(options, Path(folder) / "pool.profile")
        seconds = Seconds(options.saturate or options.seconds, options.seconds)
        found = asyncio.run(_measure_all(material, VARIANTS[:2] if options.pair else VARIANTS, seconds))
    how = f"{options.model.name}, {options.weights}, {options.threads} thread(s), {SLOTS} at once"
    print(
        report(
            "fixed_routing", measured_rows(found), title=f"{how}, Azure chat trace, lengths ÷ {options.scale}"
        )
    )
    plot(found, FOLDER / "fixed_routing.svg")


def _options(arguments: Items[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.fixed_routing")
    parser.add_argument("--trace", type=Path, required=True, help="Azure's chat trace")
    parser.add_argument(
        "--model", type=Path, default=NANO, help="checkpoint folder (default: the project's own)"
    )
    parser.add_argument("--profile", type=Path, help="of the tier (default: one is made from the corpus)")
    parser.add_argument("--pair", action="store_true", help="the tier and dynamic routing alone")
    parser.add_argument("--seconds", type=float, default=12.0, help="length of each run")
    parser.add_argument("--saturate", type=float, metavar="SECONDS", help="length of those at full load")
    parser.add_argument("--scale", type=int, default=8, help="what the trace's lengths are divided by")
    parser.add_argument("--threads", type=int, default=1, help="of the engine")
    parser.add_argument("--weights", default="float32")
    return parser.parse_args(arguments)


def _material(options: argparse.Namespace, profile_file: Path) -> Material:
    tokenizer = Tokenizer.from_dir(options.model)
    text = "".join(source.text for source in iter_corpus())[:_CORPUS]
    if options.profile is None:
        profile = _profile_made(options, tokenizer, text)
        profile.save(profile_file)
    else:
        profile, profile_file = profile_load(options.profile), options.profile
    config = EngineConfig(
        page_size=16,
        pages=4096,
        max_running=SLOTS,
        step_token_budget=512,
        threads=options.threads,
        weights=options.weights,
        max_queued=1 << 16,
        routing_profiles=(str(profile_file),),
    )
    trace = chat_read(options.trace, scale=options.scale)
    return Material(options.model, config, profile, tuple(tokenizer.encode(text)), tuple(trace))


def _profile_made(options: argparse.Namespace, tokenizer: Tokenizer, text: str) -> RoutingProfile:
    """A pool of half of the experts, from some windows of the text."""
    model = routed_model(options.model, options.weights)
    windows = windows_cut([text], tokenizer, length=512)
    some = windows[:: max(len(windows) // _MADE_FROM, 1)]
    observed = observe(model, some, by_token=False, told=lambda *_: None)
    return profile_make(observed, mode="pool", size=None, coverage_min=0.0, domain="code")


async def _measure_all(material: Material, variants: Items[Variant], seconds: Seconds) -> list[Measured]:
    gc.collect()
    gc.freeze()  # this process holds the clock
    found: list[Measured] = []
    for variant in variants:
        capacity = found[0].capacity if found else None
        found.append(await _measure(variant, material, seconds, capacity))
    return found


async def _measure(
    variant: Variant, material: Material, seconds: Seconds, capacity: float | None
) -> Measured:
    """One engine from start to end; loads are shares of `capacity`, or of its own."""
    budget = SLOTS + CHUNK if variant.paced else material.config.step_token_budget
    config = replace(material.config, paced=variant.paced, step_token_budget=budget)
    engine = await RemoteEngine.launch(material.model, config)
    routing = material.profile.id if variant.fixed else None
    trace = [one for one in material.trace if one.prompt + one.new < engine.max_model_len]
    client = Client(engine, trace=trace, text=material.text, routing=routing)
    try:
        own = await client.saturate(seconds.saturated)
        loads = []
        for share in LOADS:
            loads.append(await client.replay(share * (capacity or own), seconds.replayed))
            print(
                f"{variant.name}, {share:.0%}: p50 {1000 * loads[-1].gap_p50:.2f} ms, "
                f"p99/p50 {loads[-1].spread:.3f}",
                flush=True,
            )
        stats = engine.stats()
    finally:
        await engine.close()
    touched, layers = stats.experts_touched, stats.experts_layers
    if variant.fixed:
        touched, layers = stats.fixed_experts_touched, stats.fixed_experts_layers
    return Measured(variant, own, tuple(loads), touched / max(layers, 1))


def measured_rows(found: Items[Measured]) -> list[Row]:
    """The tier with dynamic routing as its peer, then the others' spread."""
    tier, dynamic = (next(one for one in found if one.variant is kind) for kind in (TIER, DYNAMIC))
    rows = [
        compare("capacity", tier.capacity, "tok/s", peer="dynamic", peer_value=dynamic.capacity),
        _lower("experts touched", tier.experts, "per layer", dynamic.experts),
    ]
    for place, share in enumerate(LOADS):
        ours, theirs = tier.loads[place], dynamic.loads[place]
        rows += [
            _lower(f"{share:.0%} load, inter-token p50", 1000 * ours.gap_p50, "ms", 1000 * theirs.gap_p50),
            _lower(f"{share:.0%} load, inter-token p99", 1000 * ours.gap_p99, "ms", 1000 * theirs.gap_p99),
            _lower(f"{share:.0%} load, inter-token mean", 1000 * ours.gap_mean, "ms", 1000 * theirs.gap_mean),
            _lower(f"{share:.0%} load, p99/p50", ours.spread, "ratio", theirs.spread, TARGET),
            _lower(
                f"{share:.0%} load, first token p50", 1000 * ours.first_p50, "ms", 1000 * theirs.first_p50
            ),
            _lower(
                f"{share:.0%} load, first token p99", 1000 * ours.first_p99, "ms", 1000 * theirs.first_p99
            ),
        ]
    for one in found:
        if one.variant not in (TIER, DYNAMIC):
            rows.append(
                compare(
                    f"{one.variant.name}: capacity",
                    one.capacity,
                    "tok/s",
                    peer="dynamic",
                    peer_value=dynamic.capacity,
                )
            )
            rows += [
                _lower(f"{one.variant.name}: {share:.0%}, p99/p50", load.spread, "ratio", base.spread, TARGET)
                for share, load, base in zip(LOADS, one.loads, dynamic.loads, strict=True)
            ]
    return rows


def _lower(metric: str, value: float, unit: str, dynamic: float, limit: float | None = None) -> Row:
    return compare(metric, value, unit, peer="dynamic", peer_value=dynamic, limit=limit, lower_is_better=True)


def plot(found: Items[Measured], path: Path) -> None:
    """The intervals between tokens by rank, at each load."""
    ranks = np.linspace(0, 0.999, 400)
    with picture(path, width=9, height=3.6) as figure:
        for axes, place in zip(figure.subplots(1, len(LOADS), sharey=True), range(len(LOADS)), strict=True):
            for one in found:
                gaps = 1000 * np.quantile(one.loads[place].gaps, ranks)
                spread = one.loads[place].spread
                axes.plot(100 * ranks, gaps, label=f"{one.variant.name}, p99/p50 {spread:.2f}")
            axes.set(title=f"{LOADS[place]:.0%} load", xlabel="share of the intervals, %", yscale="log")
            axes.legend(fontsize=8, frameon=False)
        figure.axes[0].set_ylabel("between two tokens, ms")


if __name__ == "__main__":
    main()
