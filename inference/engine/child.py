"""The engine's process, before it is told what to load. Needs next to no imports, so that it can be the first
thing that a worker does: torch takes longer to import than anything else at its start.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineChild:
    """A process that waits for its first message at the other end of `link`."""

    process: subprocess.Popen[bytes]
    link: socket.socket

    @classmethod
    def start(cls, threads: int, program: str = "inference.engine.process") -> EngineChild:
        """Start the module `program`, its end of the connection inherited and its threads known to OpenMP
        before torch is imported. Call it in the main thread: the child dies with the thread that started it.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            number = theirs.fileno()
            process = subprocess.Popen(
                [sys.executable, "-m", program, str(number)],
                stdin=subprocess.DEVNULL,
                pass_fds=[number],
                env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            )
        return cls(process, ours)

    def end(self) -> None:
        """Have it gone, whatever it does; nothing when it is."""
        self.process.kill()
        self.link.close()
        self.process.wait()
