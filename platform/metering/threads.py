"""The meter's three repeating tasks, put together. Needs Django to be set up."""

from __future__ import annotations

import threading
from functools import partial

import psycopg
import redis
from django.db import connections

from directory.watch import Watcher
from metering.journals import JournalReader, workers_known
from metering.orphans import OrphanHolds
from metering.posting_loop import PostingLoop
from metering.settings import MeterSettings
from metering.sweeper import Sweeper
from metering.tasks import Task

SWEEP_EVERY_S = 1.0
WATCH_EVERY_S = 1.0
REDIS_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5


def tasks_make(settings: MeterSettings, stop: threading.Event) -> tuple[Task, ...]:
    """Posting (for the main thread), sweeper and watch; each with connections of its own to PostgreSQL."""
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
