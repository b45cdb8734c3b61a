"""Usage pages, their charts, and how numbers read."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from django.test import Client
from hypothesis import given, settings
from hypothesis import strategies as st

from console.chart import HEIGHT, PLOT_HEIGHT, TOP, WIDTH, Series, daily_chart, tick_step
from console.formats import dollars_aligned, dollars_short, number, percent, percent_short
from core.clock import clock
from core.money import dollars_to_nano
from tests.console.world import World, usage_make

SERIES = (Series("Input", 1), Series("Output", 3))


def test_usage_counts_own_requests_of_the_period(world: World, owner_client: Client) -> None:
    recent = usage_make(world, prompt_tokens=1_234, cached_tokens=0, completion_tokens=4_321)
    usage_make(world, at=clock.now() - timedelta(days=10), prompt_tokens=50_000, cached_tokens=0)
    usage_make(world, tenant=world.other_tenant, prompt_tokens=77_777, cached_tokens=0)
    week = owner_client.get("/console/usage?days=7").content.decode()
    assert "1,234" in week
    assert "4,321" in week
    assert dollars_aligned(recent.charge_nano) in week
    assert "51,234" in owner_client.get("/console/usage?days=30").content.decode()
    assert "77,777" not in week


def test_usage_of_nothing_says_so(world: World) -> None:
    rival = world.client_of(world.stranger)
    with clock.frozen(clock.now() - timedelta(days=400)):
        page = rival.get("/console/usage").content.decode()
    assert "Nothing used in this period" in page


@pytest.mark.parametrize("days", ["", "0", "-7", "9999999999", "x"])
def test_a_strange_period_is_thirty_days(days: str, owner_client: Client) -> None:
    response = owner_client.get("/console/usage", {"days": days})
    assert '<a href="?days=30" aria-current="page">' in response.content.decode()


@given(st.lists(st.tuples(st.integers(0, 10**15), st.integers(0, 10**15)), min_size=1, max_size=90))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_bars_stay_inside_and_keep_their_proportions(values: list[tuple[int, int]]) -> None:
    days = [date(2026, 1, 1) + timedelta(days=index) for index in range(len(values))]
    chart = daily_chart(
        key="k", title="t", series=SERIES, days=days, values=dict(zip(days, values, strict=True)), text=str
    )
    top = max(sum(pair) for pair in values)
    assert len(chart.days) == len(days)
    assert 2 <= len(chart.ticks) + (top == 0) <= 6
    for bar, pair in zip(chart.days, values, strict=True):
        assert 0 <= bar.x < bar.x + bar.width <= WIDTH
        assert [part.color for part in bar.parts] == [
            one.color for one, value in zip(SERIES, pair, strict=True) if value
        ]
        for part in bar.parts:
            assert TOP - 1 <= part.y <= part.y + part.height <= HEIGHT
        if top and sum(pair) == top:
            assert sum(part.height for part in bar.parts) >= 0.5 * PLOT_HEIGHT


@given(st.integers(0, 10**18))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_tick_steps_are_round_and_few(top: int) -> None:
    step = tick_step(top)
    assert str(step).rstrip("0") in ("1", "2", "5")
    assert -(-top // step) <= 4


@pytest.mark.parametrize(
    ("dollars", "short"),
    [
        ("0", "$0.00"),
        ("4.999999999", "$4.99"),
        ("1234.5", "$1,234.50"),
        ("0.123456789", "$0.123"),
        ("0.000137718", "$0.000137"),
        ("0.000000001", "$0.000000001"),
        ("-0.5", "-$0.50"),
    ],
)
def test_short_amounts_are_cut_never_rounded_up(dollars: str, short: str) -> None:
    assert dollars_short(dollars_to_nano(dollars)) == short


@given(st.integers(-(10**15), 10**15))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_short_amounts_come_close_and_aligned_ones_are_exact(nano: int) -> None:
    shown = dollars_to_nano(dollars_short(nano).replace("$", "").replace(",", ""))
    assert 0 <= abs(nano) - abs(shown) <= abs(nano) // 100
    assert dollars_to_nano(dollars_aligned(nano).replace("$", "").replace(",", "")) == nano


def test_counts_and_shares_read_plainly() -> None:
    assert number(1234567) == "1,234,567"
    assert [percent(ppm) for ppm in (50_000, 125, 1_000_000, 0)] == ["5%", "0.0125%", "100%", "0%"]
    assert [percent_short(ppm) for ppm in (784_313, 999_999, 0)] == ["78.4%", "99.9%", "0.0%"]


def test_a_chart_labels_its_newest_day() -> None:
    days = [date(2026, 1, 1) + timedelta(days=index) for index in range(30)]
    chart = daily_chart(key="k", title="t", series=SERIES, days=days, values={}, text=str)
    assert chart.days[-1].label == "30 Jan"
