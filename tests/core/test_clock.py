"""One clock, that tests can hold and move."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from core.clock import Clock


def test_running_clock_is_aware_and_moves() -> None:
    clock = Clock()
    first = clock.now()
    assert first.tzinfo is UTC
    assert clock.now() >= first
    assert abs(clock.now_ms() - clock.now().timestamp() * 1000) < 5_000


def test_frozen_clock_moves_only_when_told() -> None:
    clock = Clock()
    at = datetime(2026, 5, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    with clock.frozen(at):
        assert clock.now() == at
        assert clock.now().tzinfo is UTC
        assert clock.now_ms() == int(at.timestamp() * 1000)
        clock.advance(timedelta(milliseconds=1500))
        assert clock.now() - at == timedelta(milliseconds=1500)
        with clock.frozen(at + timedelta(days=1)):
            assert clock.now() - at == timedelta(days=1)
        assert clock.now() - at == timedelta(milliseconds=1500)
    assert clock.now() != at


def test_misuse_is_refused() -> None:
    clock = Clock()
    with pytest.raises(RuntimeError, match="frozen"):
        clock.advance(timedelta(seconds=1))
    with pytest.raises(ValueError, match="timezone"), clock.frozen(datetime(2026, 1, 1)):  # noqa: DTZ001
        pass


def test_clock_runs_again_after_an_error() -> None:
    clock = Clock()
    with pytest.raises(KeyError), clock.frozen(datetime(2000, 1, 1, tzinfo=UTC)):
        raise KeyError
    assert clock.now().year > 2000
