"""Rounds of works through sides in turn, with a limit on the time of each."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from bench.peers.process import SideError
from bench.peers.work import Work

# Slow sides take so few steps as still tell their rate.
_FEW_NEW = 8


class Timed(Protocol):
    """A side as the rounds see it."""

    @property
    def peak_bytes(self) -> int: ...

    def rate(self, work: Work) -> float: ...


class Rounds:
    """Times `sides` in turn and keeps every sample: `samples[side, work]`.

    `limits_s` has the most that a work of a side may take. A short work of each kind foretells how long it
    will: what is too long is done with fewer tokens, and if that is still too long the rate of the short work
    stays as the only sample, which `notes` says. `failed` names the sides that gave up.
    """

    def __init__(self, sides: Mapping[str, Timed], *, limits_s: Mapping[str, float] | None = None) -> None:
        self.sides = dict(sides)
        self._limits_s = dict(limits_s or {})
        self.samples: dict[tuple[str, Work], list[float]] = {}
        self.notes: dict[tuple[str, Work], str] = {}
        self.failed: dict[str, str] = {}
        self._plans: dict[tuple[str, Work], Work | None] = {}

    def warm_up(self, works: Sequence[Work]) -> None:
        """A short work of each kind by each side, from which the works of the rounds follow."""
        prefills = [work for work in works if work.kind == "prefill"]
        for name in self.sides:
            read = decoded = 0.0
            for work in [*prefills, *(work for work in works if work.kind == "decode")]:
                if decoded and self._is_hopeless(name, work, decoded, read):
                    continue
                began = time.perf_counter()
                rate = self._rate(name, work.probe)
                if work.kind == "prefill":
                    read = rate
                else:
                    decoded = rate
                if rate:
                    self._plan(name, work, rate, read)
                    _say(f"{work.name}, short", name, rate, time.perf_counter() - began)

    def round(self, works: Sequence[Work]) -> None:
        """Each work once by each side."""
        for work in works:
            for name in self.sides:
                planned = self._plans.get((name, work))
                if planned is None or name in self.failed:
                    continue
                began = time.perf_counter()
                rate = self._rate(name, planned)
                if rate:
                    self.samples.setdefault((name, work), []).append(rate)
                _say(work.name, name, rate, time.perf_counter() - began)

    def median(self, name: str, work: Work) -> float | None:
        samples = self.samples.get((name, work))
        return statistics.median(samples) if samples else None

    def _is_hopeless(self, name: str, work: Work, decoded: float, read: float) -> bool:
        """Whether even the short work would take too long, at the rates of smaller ones."""
        seconds = _seconds(work.probe, decoded, read)
        if seconds <= self._limits_s.get(name, math.inf):
            return False
        self.notes[name, work] = f"left out: even {work.probe.size} would take {seconds:.0f} s"
        return True

    def _plan(self, name: str, work: Work, rate: float, read: float) -> None:
        """What stands for `work` in the rounds of a side that did its probe at `rate`."""
        few = work.shortened(_FEW_NEW)
        for candidate in (work, few):
            if _seconds(candidate, rate, read) <= self._limits_s.get(name, math.inf):
                self._plans[name, work] = candidate
                return
        seconds = _seconds(few, rate, read)
        self.notes[name, work] = f"would take {seconds:.0f} s; its rate is that of {work.probe.size}"
        self.samples[name, work] = [rate]
        self._plans[name, work] = None

    def _rate(self, name: str, work: Work) -> float:
        """0 when the side has failed, now or before."""
        if name in self.failed:
            return 0.0
        try:
            return self.sides[name].rate(work)
        except SideError as error:
            self.failed[name] = str(error)
            return 0.0


def _seconds(work: Work, rate: float, read: float) -> float:
    """About how long a work takes, its prompts included, at the rates of short ones."""
    if work.kind == "prefill":
        return work.prompt / rate
    reading = work.batch * work.prompt / read if read else 0.0
    return reading + work.batch * work.new / rate


def _say(work: str, name: str, rate: float, seconds: float) -> None:
    print(f"  {work:26} {name:32} {rate:9.1f} tok/s in {seconds:.1f} s", flush=True)
