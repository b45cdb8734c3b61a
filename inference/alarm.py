"""A moment that an event loop is woken at. Its own timers count in whole milliseconds; a kernel's do not."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import cache

_CLOCK_MONOTONIC = 1  # that of `time.perf_counter`
_ABSOLUTE = 1
_SPEC = struct.Struct("qqqq")  # struct itimerspec: interval and moment, each in seconds and nanoseconds
_NS = 1_000_000_000


class Alarm:
    """Calls `ring` on the running event loop at one moment at a time, some tens of microseconds late.

    The timer is a descriptor of Linux (`timerfd_create(2)`), opened by the first `set` and gone with `close`.
    On other systems the loop's own timer rings, up to a millisecond late.
    """

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: int | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._gone: Callable[[], object] = lambda: None

    def set(self, at_s: float) -> None:
        """Ring at `at_s` of `time.perf_counter`, soon when that has passed, and not when set before."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self.close()
            self._open(loop)
        if self._timer is not None:
            _timer_set(self._timer, at_s)
            return
        if self._handle is not None:
            self._handle.cancel()
        self._handle = loop.call_later(max(at_s - time.perf_counter(), 0.0), self._ring)

    def close(self) -> None:
        """Ring no more."""
        if self._handle is not None:
            self._handle.cancel()
        if self._timer is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._timer)
        self._gone()
        self._loop = self._timer = self._handle = None

    def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        timer = _timer_new()
        if timer is None:
            return
        self._timer = timer
        self._gone = weakref.finalize(self, os.close, timer)
        loop.add_reader(timer, self._rung)

    def _rung(self) -> None:
        if self._timer is not None:
            with suppress(BlockingIOError):  # it was set anew meanwhile
                os.read(self._timer, 8)
                self._ring()


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _timer_new() -> int | None:
    if sys.platform != "linux" or time.get_clock_info("perf_counter").implementation != (
        "clock_gettime(CLOCK_MONOTONIC)"
    ):
        return None
    timer = int(_libc().timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))
    return None if timer < 0 else timer


def _timer_set(timer: int, at_s: float) -> None:
    moment = divmod(max(int(at_s * _NS), 1), _NS)  # none at all would be never
    if _libc().timerfd_settime(timer, _ABSOLUTE, _SPEC.pack(0, 0, *moment), None) != 0:
        raise OSError(ctypes.get_errno(), f"the timer cannot be set to {at_s} s")
