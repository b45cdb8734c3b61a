"""A process that is not to outlive its parent."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1


def parent_follow() -> None:
    """Be a process that is there for its parent alone: die with it, and leave signals to it, so that a signal
    to both lets the parent end first what it began.
    """
    parent_death_signal(signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def parent_death_signal(number: signal.Signals) -> bool:
    """Ask the kernel for a signal when the parent dies; False where the kernel knows no such thing.

    A parent that died before the call is not noticed: look at `os.getppid` afterwards. The kernel ties the
    signal to the parent's thread that started this process, which must live as long as the parent.
    """
    if sys.platform != "linux":
        return False
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    return True
