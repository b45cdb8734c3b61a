"""``python -m inference.worker``: see ``--help``."""

from __future__ import annotations

import asyncio
import logging
import sys

import uvloop

from inference.worker.lifecycle import parent_death_follow
from inference.worker.logs import configure_logs, log_event
from inference.worker.membership.errors import StartupError
from inference.worker.options import options_parse
from inference.worker.process import worker_run


def main() -> int:
    """Run the worker; the exit status tells a supervisor whether to start it again."""
    options = options_parse()
    configure_logs(worker=options.name)
    parent_death_follow()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(worker_run(options))
    except StartupError as error:
        status = error.exit_status
        log_event("startup_failed", level=logging.CRITICAL, problem=str(error), exit_status=status)
        return status


if __name__ == "__main__":
    sys.exit(main())
