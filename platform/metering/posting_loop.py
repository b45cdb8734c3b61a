"""The meter's main loop: one connection to PostgreSQL, made anew after every fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import redis

from metering.meter import Meter
from metering.posting import Poster
from metering.stream import UsageStream


class PostingLoop:
    """``step`` may raise at any time; after ``repair`` the next one begins with what was left unfinished."""

    def __init__(
        self, client: redis.Redis, connect: Callable[[], psycopg.Connection[Any]], consumer: str
    ) -> None:
        self._stream = UsageStream(client, consumer=consumer)
        self._connect = connect
        self._connection: psycopg.Connection[Any] | None = None
        self._meter: Meter | None = None

    def step(self) -> float:
        """Post one batch, waiting a moment for the first event. Returns 0: go on at once."""
        if self._meter is None:
            self._connection = self._connect()
            self._meter = Meter(self._stream, Poster(self._connection))
        self._meter.step()
        return 0.0

    def repair(self) -> None:
        """Drop the connection; the next step connects again and asks for its own unfinished messages."""
        connection, self._connection, self._meter = self._connection, None, None
        if connection is not None:
            connection.close()
