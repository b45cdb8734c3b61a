"""Become another program that cannot outlive its parent. Run as a script: standard library only.

``exec_shim.py PARENT_PID SIGNAL UID GID PROGRAM ARGS…`` drops privileges (UID −1: stay), asks the kernel
for SIGNAL when the parent dies, and executes PROGRAM. The order matters: changing the user clears the
parent-death signal. Where the kernel knows no such signal (macOS), only the drop happens.
"""

from __future__ import annotations

import ctypes  # loaded before the drop: the new user may not be able to read our standard library
import os
import sys

_PR_SET_PDEATHSIG = 1
_EXIT_ORPHANED = 75


def _drop_privileges(uid: int, gid: int) -> None:
    if uid < 0:
        return
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _die_with_parent(parent_pid: int, death_signal: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:  # the parent died before the kernel was asked
        sys.exit(_EXIT_ORPHANED)


def main(argv: list[str]) -> None:
    """Never returns: the process becomes the program."""
    parent_pid, death_signal, uid, gid = (int(value) for value in argv[1:5])
    program = argv[5:]
    _drop_privileges(uid, gid)
    _die_with_parent(parent_pid, death_signal)
    os.execvpe(program[0], program, os.environ)  # noqa: S606  (an argument list, no shell)


if __name__ == "__main__":
    main(sys.argv)
