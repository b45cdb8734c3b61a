"""A thread that brings written entries to the disk, many at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

SYNC_INTERVAL_S = 0.05


class Syncer:
    """Calls fsync on a file at most ``SYNC_INTERVAL_S`` after ``wake``; ``failed`` hears of an error once."""

    def __init__(self, failed: Callable[[OSError], None]) -> None:
        self._failed = failed
        self._lock = threading.Lock()
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._descriptor = -1
        self._thread = threading.Thread(target=self._run, name="journal-sync", daemon=True)
        self._thread.start()

    def follow(self, descriptor: int) -> None:
        """Sync the file followed so far, then look after this one."""
        with self._lock:
            self._sync()
            self._descriptor = descriptor

    def wake(self) -> None:
        """Something was written."""
        self._wanted.set()

    def close(self) -> None:
        """Sync once more and stop."""
        self._stopping.set()
        self._wanted.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._wanted.wait()
            self._stopping.wait(SYNC_INTERVAL_S)
            self._wanted.clear()
            with self._lock:
                try:
                    self._sync()
                except OSError as error:
                    self._failed(error)
                    return

    def _sync(self) -> None:
        if self._descriptor >= 0:
            os.fsync(self._descriptor)
