"""The meter process: ``python -m metering.run``.

Threads, each repeating its step and surviving outages of PostgreSQL and Redis::

    main      usage stream → ledger
    sweeper   holds of dead gateways → settled or voided
    watch     PostgreSQL → directory in Redis
    status    /healthz /readyz /metrics
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from functools import partial
from types import FrameType

import django
import structlog

from core.logs import configure_logs
from core.process import die_with_parent
from metering.http import StatusServer
from metering.settings import settings_from_env

READY_WITHIN_S = 15.0
ALIVE_WITHIN_S = 60.0
JOIN_S = 5.0

log = structlog.get_logger()


def main() -> int:
    """Run until SIGTERM or SIGINT; the batch in progress is finished first."""
    die_with_parent()
    configure_logs(process="meter")
    settings = settings_from_env()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()
    stop = threading.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, partial(_stop, stop))
    from metering.threads import tasks_make  # noqa: PLC0415 - models exist only now

    tasks = tasks_make(settings, stop)
    status = StatusServer(
        settings.host,
        settings.port,
        alive=lambda: {task.name: task.turning(within_s=ALIVE_WITHIN_S) for task in tasks},
        ready=lambda: {task.name: task.healthy(within_s=READY_WITHIN_S) for task in tasks},
    )
    status.start()
    log.info("meter started", slot=settings.slot, port=status.port)
    others = [threading.Thread(target=task.run, name=task.name, daemon=True) for task in tasks[1:]]
    for thread in others:
        thread.start()
    tasks[0].run()
    for thread in others:
        thread.join(JOIN_S)
    status.stop()
    log.info("meter stopped")
    return 0


def _stop(stop: threading.Event, _signum: int, _frame: FrameType | None) -> None:
    stop.set()


if __name__ == "__main__":
    sys.exit(main())
