"""What the prefix cache finds on a production trace, at several sizes, beside an ideal LRU and no limit.

`python -m bench.prefix_cache --trace mooncake_conversation_trace.jsonl.gz [--pages N …] [--requests N]`

The trace (kvcache-ai/Mooncake, Apache-2.0) names for each request the blocks of 512 tokens of its prompt.
All lengths are divided by 32: a block becomes one page of 16 tokens. Requests go through the engine's own
scheduler at their times on a clock that advances by a fixed time per step; nothing is computed. The share of
prompt tokens found is compared with
- unlimited: every full block that an earlier request had is found, as long as all before it are;
- ideal LRU: as many blocks as the cache has pages, each request served at once, the longest unused given up.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Sequence as Items
from pathlib import Path

from bench.mooncake import PAGE, TraceRequest, trace_read
from bench.picture import picture
from bench.report import FOLDER, Row, compare, report
from inference.engine.scheduler import Scheduler
from inference.engine.sequence import Sequence
from inference.engine.step import RowResult, Step
from inference.engine.types import EngineConfig, GenerationRequest, SamplingParams

PAGES = (2048, 4096, 8192, 16384, 32768, 65536)
STEP_S = 0.1
_DRAWN = 1 << 31  # generated tokens are nobody's prompt


def main(arguments: Items[str] | None = None) -> None:
    options = _options(arguments)
    trace = trace_read(options.trace)[: options.requests]
    unlimited = found_share(trace, None)
    rows: list[Row] = [Row("unlimited", unlimited, "share of prompt tokens")]
    ours: list[float] = []
    ideal: list[float] = []
    for pages in options.pages or PAGES:
        ours.append(scheduler_share(trace, pages))
        ideal.append(found_share(trace, pages))
        name = f"{pages} pages ({pages * PAGE} tokens)"
        rows.append(compare(name, ours[-1], "share", peer="ideal LRU", peer_value=ideal[-1], limit=unlimited))
        print(f"{name}: {ours[-1]:.4f}, ideal LRU {ideal[-1]:.4f}", flush=True)
    report("prefix_cache", rows, title=f"prompt tokens found in the prefix cache, {len(trace)} requests")
    plot(options.pages or PAGES, ours, ideal, unlimited, FOLDER / "prefix_cache.svg")


def _options(arguments: Items[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.prefix_cache")
    parser.add_argument("--trace", type=Path, required=True, help="Mooncake's conversation trace")
    parser.add_argument("--pages", type=int, action="append", help="size of the cache")
    parser.add_argument("--requests", type=int, help="only the first so many")
    return parser.parse_args(arguments)


def found_share(trace: Items[TraceRequest], pages: int | None) -> float:
    """Share of prompt tokens found by an LRU cache of so many blocks (None: unlimited).

    Requests are served one at a time. A prompt's last token is always computed, as in the engine.
    """
    cache: OrderedDict[int, None] = OrderedDict()
    found = total = 0
    for request in trace:
        usable = (request.prompt - 1) // PAGE
        hit = 0
        while hit < usable and request.blocks[hit] in cache:
            hit += 1
        found += hit * PAGE
        total += request.prompt
        for block in reversed(request.blocks[: request.prompt // PAGE]):  # the end of a prompt goes first
            cache.pop(block, None)
            cache[block] = None
        while pages is not None and len(cache) > pages:
            cache.popitem(last=False)
    return found / total


def scheduler_share(trace: Items[TraceRequest], pages: int) -> float:
    """Share of prompt tokens that the engine's scheduler finds with so many pages."""
    scheduler = Scheduler(EngineConfig(page_size=PAGE, pages=pages), eos_ids=())
    now_s, arrived = 0.0, 0
    while arrived < len(trace) or scheduler.has_work:
        if not scheduler.has_work:
            now_s = max(now_s, trace[arrived].arrival_s)
        while arrived < len(trace) and trace[arrived].arrival_s <= now_s:
            scheduler.add(_sequence(trace[arrived], arrived), now_s)
            arrived += 1
        step = scheduler.schedule(now_s)
        scheduler.record(step, _nothing_computed(step))
        now_s += STEP_S
    scheduler.check()
    return scheduler.counts.cached_tokens / scheduler.counts.prompt_tokens


def _sequence(request: TraceRequest, number: int) -> Sequence:
    params = SamplingParams(max_tokens=request.new, temperature=0)
    return Sequence(GenerationRequest(f"trace-{number}", request.tokens(), params), number, seed=0)


def _nothing_computed(step: Step) -> list[RowResult]:
    return [RowResult(tokens=(_DRAWN + row.sequence.arrival,) if row.draws else ()) for row in step.rows]


def plot(sizes: Items[int], ours: Items[float], ideal: Items[float], unlimited: float, path: Path) -> None:
    """Shares over sizes, as a picture."""
    with picture(path, width=6, height=3.6) as figure:
        axes = figure.subplots()
        tokens = [size * PAGE for size in sizes]
        axes.axhline(unlimited, color="0.6", linestyle="--", label="unlimited")
        axes.plot(tokens, ideal, marker="o", label="ideal LRU")
        axes.plot(tokens, ours, marker="x", label="Tokenworks' scheduler")
        axes.set_xscale("log", base=2)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("tokens in the cache (lengths of the trace divided by 32)")
        axes.set_ylabel("prompt tokens found")
        axes.legend()


if __name__ == "__main__":
    main()
