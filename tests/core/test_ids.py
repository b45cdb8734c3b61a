"""Ids are well-formed, sort by time as text, and never repeat."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.clock import clock
from core.ids import PREFIXES, id_floor, id_time_ms, is_id, new_id, new_ids


@pytest.mark.parametrize("prefix", sorted(PREFIXES))
def test_new_ids_are_well_formed(prefix: str) -> None:
    made = new_id(prefix)
    assert is_id(made, prefix)
    assert len(made) == len(prefix) + 27
    assert not is_id(made, "xyz")


def test_unregistered_prefix_is_refused() -> None:
    with pytest.raises(ValueError, match="xyz"):
        new_id("xyz")


@pytest.mark.parametrize("text", ["", "req", "req_", "req_" + "0" * 25, "req_" + "u" * 26, "req_" + "A" * 26])
def test_malformed_ids_are_recognised(text: str) -> None:
    assert not is_id(text, "req")


@settings(max_examples=50, derandomize=True, deadline=None)
@given(st.integers(0, 2**40))
def test_time_is_kept_and_bounds_a_range(at_ms: int) -> None:
    with clock.frozen(datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=at_ms)):
        made = new_id("trf")
    assert id_time_ms(made) == at_ms
    assert id_floor("trf", at_ms) <= made < id_floor("trf", at_ms + 1)


def test_bulk_ids_ascend_and_differ() -> None:
    made = new_ids("req", 5000)
    assert made == sorted(set(made))
    assert new_ids("req", 0) == []
    assert not set(made) & set(new_ids("req", 5000))


def test_later_ids_sort_later() -> None:
    with clock.frozen(datetime(2026, 1, 1, tzinfo=UTC)) as moving:
        made = []
        for _ in range(50):
            made.append(new_id("req"))
            moving.advance(timedelta(milliseconds=1))
    assert made == sorted(made)
