"""Stacked daily bars as plain coordinates, for a template to draw as SVG. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

WIDTH, HEIGHT = 760, 240
LEFT, RIGHT, TOP, BOTTOM = 84, 16, 10, 28
PLOT_HEIGHT = HEIGHT - TOP - BOTTOM
TICKS_WANTED = 4
LABELS_WANTED = 6
GAP_SHARE = 0.28


@dataclass(frozen=True, slots=True)
class Series:
    """What one colour of the bars means; ``color`` is a number of the palette."""

    name: str
    color: int


@dataclass(frozen=True, slots=True)
class Tick:
    """A horizontal line and its label."""

    y: float
    text_y: float
    label: str


@dataclass(frozen=True, slots=True)
class Part:
    """One series' piece of a bar; ``color`` is a number of the palette."""

    color: int
    y: float
    height: float


@dataclass(frozen=True, slots=True)
class DayBar:
    """All of one day; ``label`` is empty where there is no room for one."""

    x: float
    width: float
    middle: float
    title: str
    label: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """Everything the template needs, in SVG user units."""

    key: str
    title: str
    series: tuple[Series, ...]
    ticks: tuple[Tick, ...]
    days: tuple[DayBar, ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    top: int = TOP
    plot_height: int = PLOT_HEIGHT
    label_x: int = LEFT - 8
    label_y: int = HEIGHT - 8


def daily_chart(
    *,
    key: str,
    title: str,
    series: Sequence[Series],
    days: Sequence[date],
    values: Mapping[date, Sequence[int]],
    text: Callable[[int], str],
) -> Chart:
    """Bars for ``days``; ``values`` holds a day's numbers in the order of ``series``, no entry means zero."""
    top_value = max((sum(numbers) for numbers in values.values()), default=0)
    step = tick_step(top_value)
    ticks = [step * index for index in range(-(-top_value // step) + 1)]
    scale = PLOT_HEIGHT / max(1, ticks[-1])
    slot = (WIDTH - LEFT - RIGHT) / max(1, len(days))
    every = -(-len(days) // LABELS_WANTED)
    bars = []
    for index, day in enumerate(days):
        numbers = values.get(day, [0] * len(series))
        x = LEFT + slot * index + slot * GAP_SHARE / 2
        spoken = ", ".join(f"{one.name} {text(value)}" for one, value in zip(series, numbers, strict=True))
        bars.append(
            DayBar(
                x=round(x, 1),
                width=round(slot * (1 - GAP_SHARE), 1),
                middle=round(x + slot * (1 - GAP_SHARE) / 2, 1),
                title=f"{day.day} {day:%b}: {spoken}",
                label=f"{day.day} {day:%b}" if (len(days) - 1 - index) % every == 0 else "",
                parts=_parts(series, numbers, scale),
            )
        )
    return Chart(
        key=key,
        title=title,
        series=tuple(series),
        ticks=tuple(_tick(value, scale, text) for value in ticks),
        days=tuple(bars),
    )


def tick_step(top_value: int) -> int:
    """A round step (1, 2 or 5 times a power of ten) that needs about four ticks up to ``top_value``."""
    least = max(1, -(-top_value // TICKS_WANTED))
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= least:
                return factor * power
        power *= 10


def _parts(series: Sequence[Series], numbers: Sequence[int], scale: float) -> tuple[Part, ...]:
    parts = []
    base = float(TOP + PLOT_HEIGHT)
    for one, value in zip(series, numbers, strict=True):
        height = value * scale
        base -= height
        if value:
            parts.append(Part(color=one.color, y=round(base, 1), height=round(max(height, 0.5), 1)))
    return tuple(parts)


def _tick(value: int, scale: float, text: Callable[[int], str]) -> Tick:
    y = round(TOP + PLOT_HEIGHT - value * scale, 1)
    return Tick(y=y, text_y=y + 4, label=text(value))
