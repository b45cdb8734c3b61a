"""A thread that waits for a moment and is to go on at it, though other threads are computing."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

SLICE_NS = 100_000
_CALLS = {"x86_64": 314, "aarch64": 274}  # sched_setattr, which libc does not wrap everywhere
_ATTR = struct.Struct("=IIQiIQQQII")  # struct sched_attr of linux/sched/types.h, with the clamps
_RESET_ON_FORK = 1


def wake_promptly() -> bool:
    """Ask the kernel for short turns of the calling thread, and of none that it starts.

    Linux lets a thread that computes have its turn of some milliseconds before one that has woken up, unless
    that one's turns are shorter (EEVDF, 6.12 or newer; earlier kernels ignore the wish). No right is needed,
    and no share of the processor won. False where this cannot be asked for.
    """
    number = _CALLS.get(platform.machine())
    if sys.platform != "linux" or number is None:
        return False
    if os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK != os.SCHED_OTHER:
        return False  # somebody has chosen another policy
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _ATTR.pack(_ATTR.size, os.SCHED_OTHER, _RESET_ON_FORK, nice, 0, SLICE_NS, 0, 0, 0, 0)
    return bool(ctypes.CDLL(None).syscall(number, 0, attributes, 0) == 0)
