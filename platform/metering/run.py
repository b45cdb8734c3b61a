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
from dataclasses import dataclass
from functools import partial
from types import FrameType

import django
import psycopg
import redis
import structlog

from core.logs import configure_logs
from core.process import die_with_parent
from metering.http import StatusServer
from metering.tasks import Task

SWEEP_EVERY_S = 1.0
WATCH_EVERY_S = 1.0
READY_WITHIN_S = 15.0
ALIVE_WITHIN_S = 60.0
JOIN_S = 5.0
REDIS_TIMEOUT_S = 10.0

log = structlog.get_logger()


@dataclass(frozen=True)
class MeterSettings:
    """What the process needs from its environment."""

    database_url: str
    redis_url: str
    dispatch_secret: str
    slot: str
    host: str
    port: int


def settings_from_env() -> MeterSettings:
    """Read the environment. Raises SystemExit naming the variable that is missing."""
    return MeterSettings(
        database_url=_env("DATABASE_SYSTEM_URL"),
        redis_url=_env("REDIS_URL"),
        dispatch_secret=_env("TOKENWORKS_DISPATCH_SECRET"),
        slot=os.environ.get("TOKENWORKS_METER_SLOT", "meter-0"),
        host=os.environ.get("TOKENWORKS_METRICS_HOST", "127.0.0.1"),
        port=int(_env("TOKENWORKS_METRICS_PORT")),
    )


def _env(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise SystemExit(f"environment variable {name} is not set; `make up` sets it for its processes")
    return value


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
    tasks = _tasks(settings, stop)
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


def _tasks(settings: MeterSettings, stop: threading.Event) -> tuple[Task, ...]:
    # Imported here because models exist only after django.setup().
    from django.db import connections  # noqa: PLC0415

    from directory.watch import Watcher  # noqa: PLC0415
    from metering.journals import JournalReader, workers_known  # noqa: PLC0415
    from metering.orphans import OrphanHolds  # noqa: PLC0415
    from metering.posting_loop import PostingLoop  # noqa: PLC0415
    from metering.sweeper import Sweeper  # noqa: PLC0415

    client = redis.Redis.from_url(
        settings.redis_url, socket_timeout=REDIS_TIMEOUT_S, socket_connect_timeout=REDIS_TIMEOUT_S
    )
    loop = PostingLoop(
        client, partial(psycopg.connect, settings.database_url, autocommit=True), settings.slot
    )
    sweeper = Sweeper(
        OrphanHolds(client), JournalReader(dispatch_secret=settings.dispatch_secret), workers_known
    )
    watcher = Watcher()

    def sweep() -> float:
        sweeper.sweep()
        return SWEEP_EVERY_S

    def watch() -> float:
        watcher.step()
        return WATCH_EVERY_S

    return (
        Task("posting", loop.step, stop, repair=loop.repair),
        Task("sweeper", sweep, stop, repair=connections.close_all),
        Task("watch", watch, stop, repair=connections.close_all),
    )


if __name__ == "__main__":
    sys.exit(main())
