"""A worker's event loop, from its options to its exit status."""

from __future__ import annotations

import asyncio
import logging

import uvloop

from inference.worker.ahead import Ahead
from inference.worker.lifecycle import parent_death_follow
from inference.worker.logs import configure_logs, log_event
from inference.worker.membership.errors import StartupError
from inference.worker.options import WorkerOptions
from inference.worker.process import worker_run


def worker_main(options: WorkerOptions, ahead: Ahead) -> int:
    """Run the worker with what was begun for it; returns the exit status."""
    configure_logs(worker=options.name)
    parent_death_follow()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(worker_run(options, ahead))
    except StartupError as error:
        status = error.exit_status
        log_event("startup_failed", level=logging.CRITICAL, problem=str(error), exit_status=status)
        return status
