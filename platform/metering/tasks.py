"""Repeating a step for as long as the process lives, whatever it raises."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from metering import metrics

BACKOFF_FIRST_S = 0.1
BACKOFF_MAX_S = 5.0

log = structlog.get_logger()


class Task:
    """Runs ``step`` until ``stop`` is set; after a failure it calls ``repair`` and waits, longer each time.

    ``step`` returns how many seconds to wait before the next one.
    """

    def __init__(
        self, name: str, step: Callable[[], float], stop: threading.Event, *, repair: Callable[[], None]
    ) -> None:
        self.name = name
        self._step = step
        self._stop = stop
        self._repair = repair
        self.last_success = 0.0
        self.last_turn = time.monotonic()

    def run(self) -> None:
        """Return only once ``stop`` is set; the step in progress is finished first."""
        backoff_s = BACKOFF_FIRST_S
        while not self._stop.is_set():
            self.last_turn = time.monotonic()
            try:
                wait_s = self._step()
            except Exception as error:  # a meter that died of one fault would stop all billing
                metrics.FAULTS.labels(self.name).inc()
                log.error("task failed, will retry", task=self.name, error=f"{type(error).__name__}: {error}")
                wait_s, backoff_s = backoff_s, min(backoff_s * 2, BACKOFF_MAX_S)
                self._repair_quietly()
            else:
                self.last_success = time.monotonic()
                backoff_s = BACKOFF_FIRST_S
            if wait_s:
                self._stop.wait(wait_s)

    def healthy(self, *, within_s: float) -> bool:
        """Whether a step succeeded in the last ``within_s`` seconds."""
        return self.last_success > 0 and time.monotonic() - self.last_success < within_s

    def turning(self, *, within_s: float) -> bool:
        """Whether the loop still goes round, succeeding or not."""
        return time.monotonic() - self.last_turn < within_s

    def _repair_quietly(self) -> None:
        try:
            self._repair()
        except Exception as error:  # tried again after the next failure
            log.error("repair failed", task=self.name, error=f"{type(error).__name__}: {error}")
