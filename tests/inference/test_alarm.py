"""An alarm rings once, at its moment or after it, and not when it was set anew or closed."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from inference import alarm as module
from inference.alarm import Alarm

HOUR_S = 3600.0


@pytest.fixture(params=["kernel", "loop"])
def timers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The kernel's timers, and the loop's own as where a kernel has none."""
    if request.param == "loop":
        monkeypatch.setattr(module, "_timer_new", lambda: None)
    elif sys.platform != "linux":
        pytest.skip("timerfd is Linux's")
    return str(request.param)


class Bell:
    def __init__(self) -> None:
        self.rung: list[float] = []
        self.alarm = Alarm(self._ring)
        self._any = asyncio.Event()

    def _ring(self) -> None:
        self.rung.append(time.perf_counter())
        self._any.set()

    async def heard(self) -> float:
        async with asyncio.timeout(20):
            await self._any.wait()
        self._any.clear()
        return self.rung[-1]


@pytest.mark.usefixtures("timers")
def test_it_rings_at_its_moment_or_after_it_and_once() -> None:
    async def run() -> None:
        bell = Bell()
        for ahead_s in (0.03, 0.0, -5.0, -1e9, 0.01):
            at_s = time.perf_counter() + ahead_s
            bell.alarm.set(at_s)
            assert await bell.heard() >= at_s
        assert len(bell.rung) == 5
        bell.alarm.close()

    asyncio.run(run())


@pytest.mark.usefixtures("timers")
def test_a_later_wish_replaces_an_earlier_one() -> None:
    async def run() -> None:
        bell = Bell()
        bell.alarm.set(time.perf_counter() + HOUR_S)
        bell.alarm.set(time.perf_counter() + 0.01)
        await bell.heard()
        passed = time.perf_counter() + 0.005
        bell.alarm.set(time.perf_counter())
        while time.perf_counter() < passed:  # the loop cannot look meanwhile
            pass
        bell.alarm.set(time.perf_counter() + 0.03)
        second = time.perf_counter()
        assert await bell.heard() > second
        await asyncio.sleep(0.05)
        assert len(bell.rung) == 2
        bell.alarm.close()

    asyncio.run(run())


@pytest.mark.usefixtures("timers")
def test_a_closed_one_does_not_ring_and_may_be_set_again_on_another_loop() -> None:
    bells: list[Bell] = []

    async def close_before_it_rings() -> None:
        bells.append(Bell())
        bells[0].alarm.set(time.perf_counter() + 0.01)
        bells[0].alarm.close()
        bells[0].alarm.close()
        await asyncio.sleep(0.03)
        assert bells[0].rung == []

    async def again() -> None:
        bells[0].alarm.set(time.perf_counter())
        await bells[0].heard()
        bells[0].alarm.close()

    asyncio.run(close_before_it_rings())
    asyncio.run(again())


@pytest.mark.skipif(sys.platform != "linux", reason="timerfd is Linux's")
def test_its_descriptor_goes_with_close_and_with_the_loop() -> None:
    def descriptors() -> set[str]:
        return {entry.name for entry in Path("/proc/self/fd").iterdir()}

    async def leave(*, closed: bool) -> None:
        alarm = Alarm(lambda: None)
        alarm.set(time.perf_counter() + HOUR_S)
        assert alarm._timer is not None
        if closed:
            alarm.close()

    before = descriptors()
    asyncio.run(leave(closed=True))
    asyncio.run(leave(closed=False))
    assert descriptors() == before


def test_a_failing_kernel_says_so() -> None:
    with pytest.raises(OSError, match="cannot be set to 5"):
        module._timer_set(-1, 5.0)
