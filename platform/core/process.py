"""A child process that never outlives its supervisor."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

SWITCH = "TOKENWORKS_PARENT_DEATH_SIGNAL"
PARENT_PID = "TOKENWORKS_PARENT_PID"
_PR_SET_PDEATHSIG = 1


def die_with_parent(signum: signal.Signals = signal.SIGTERM) -> None:
    """Arrange for ``signum`` to arrive here when the parent dies; call it first thing in ``main``.

    Does nothing unless the environment says ``TOKENWORKS_PARENT_DEATH_SIGNAL=1``. A supervisor that also
    passes its own pid as ``TOKENWORKS_PARENT_PID`` closes the gap between fork and this call.
    On Linux the kernel sends the signal; elsewhere a thread looks once a second.
    """
    if os.environ.get(SWITCH) != "1":
        return
    parent = int(os.environ.get(PARENT_PID) or os.getppid())
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    else:
        threading.Thread(target=_watch, args=(parent, signum), name="parent-watch", daemon=True).start()
    if os.getppid() != parent:
        os.kill(os.getpid(), signum)


def _watch(parent: int, signum: signal.Signals) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signum)
