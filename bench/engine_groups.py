"""Which sides are measured together: our engine beside one group of peers after the other, so that memory
need hold no more than one group.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.engine_rounds import Rounds, Timed
from bench.engine_sides import Facts, Start, facts_of, hf_sides, llama_sides, vllm_sides
from bench.peers.process import SideError
from bench.peers.work import Work

# A form this many times slower than another in a short work is not tried further.
_HOPELESS = 4.0
# Peers that take a minute for a round are far enough behind for two of them.
_SLOW_ROUNDS = 2


@dataclass(frozen=True, slots=True)
class Group:
    """What was measured in turn: the peers' names, the samples of all, and facts of each side."""

    peers: tuple[str, ...]
    rounds: Rounds
    facts: Mapping[str, Facts]


def groups_measure(
    model: Path,
    ours: Mapping[str, Timed],
    works: Sequence[Work],
    options: argparse.Namespace,
    absent: dict[str, str],
) -> list[Group]:
    """All groups of peers that are there, each beside `ours`; or ours alone. Others land in `absent`."""
    groups = []
    for starts in _starts(model, works, options, absent):
        with ExitStack() as stack:
            if theirs := _start(starts, stack, absent):
                groups.append(_measure(model, ours, theirs, works, options))
                absent |= groups[-1].rounds.failed
    return groups or [_measure(model, ours, {}, works, options)]


def _starts(
    model: Path, works: Sequence[Work], options: argparse.Namespace, absent: dict[str, str]
) -> Iterator[dict[str, Start]]:
    yield llama_sides(model, options)
    for sides in (vllm_sides(model, options), hf_sides(model, options)):
        for name, start in forms_best(sides, works, absent, limit_s=options.limit).items():
            yield {name: start}


def forms_best(
    starts: Mapping[str, Start], works: Sequence[Work], absent: dict[str, str], *, limit_s: float
) -> dict[str, Start]:
    """Those forms of one peer that are the fastest in some short work, tried one at a time. One that takes
    more than `limit_s` seconds for a short work is not tried with further ones.
    """
    if len(starts) < 2:
        return dict(starts)
    rates: dict[Work, dict[str, float]] = {work.probe: {} for work in works}
    for name, start in starts.items():
        with ExitStack() as stack:
            for side in _start({name: start}, stack, absent).values():
                _try(name, side, rates, absent, limit_s)
    winners = {max(found, key=lambda name: found[name]) for found in rates.values() if found}
    for name in starts.keys() - winners - absent.keys():
        absent[name] = f"slower in every short work than {' or '.join(sorted(winners))}"
    return {name: start for name, start in starts.items() if name in winners}


def _try(
    name: str, side: Timed, rates: dict[Work, dict[str, float]], absent: dict[str, str], limit_s: float
) -> None:
    """Add the rates of a form, until it fails or proves hopeless."""
    for work, found in rates.items():
        began = time.perf_counter()
        try:
            rate = side.rate(work)
            seconds = time.perf_counter() - began
            if seconds < limit_s:  # what is done for the first time is slow
                rate = max(rate, side.rate(work))
        except SideError as error:
            absent[name] = str(error)
            return
        print(f"  {work.name + ', short':26} {name:32} {rate:9.1f} tok/s", flush=True)
        if rate * _HOPELESS < max(found.values(), default=0.0):
            absent[name] = f"more than {_HOPELESS:g} times slower than another form"
            return
        found[name] = rate
        if seconds >= limit_s:
            return


def _start(starts: Mapping[str, Start], stack: ExitStack, absent: dict[str, str]) -> dict[str, Timed]:
    """Those that come up; why the others do not goes to `absent`."""
    sides = {}
    for name, start in starts.items():
        print(f"  starting {name}", flush=True)
        try:
            sides[name] = start(stack)
        except RuntimeError as error:
            absent[name] = str(error)
    return sides


def _measure(
    model: Path,
    ours: Mapping[str, Timed],
    theirs: Mapping[str, Timed],
    works: Sequence[Work],
    options: argparse.Namespace,
) -> Group:
    limits = {name: options.limit for name in theirs if not name.startswith("llama.cpp ")}
    count = min(options.rounds, _SLOW_ROUNDS) if limits else options.rounds
    rounds = Rounds({**ours, **theirs}, limits_s=limits)
    beside = f" beside {', '.join(theirs)}" if theirs else ""
    print(f"{model.name}{beside}: warming up", flush=True)
    rounds.warm_up(works)
    for number in range(count):
        print(f"{model.name}{beside}: round {number + 1} of {count}", flush=True)
        rounds.round(works)
    facts = {name: facts_of(side) for name, side in rounds.sides.items() if name not in rounds.failed}
    return Group(tuple(theirs), rounds, facts)
