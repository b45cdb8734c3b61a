"""Real PostgreSQL and Valkey with one small consortium in them, and a meter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
import redis

from metering.meter import Meter
from metering.posting import Poster
from metering.stream import UsageStream
from stack.roles import RoleUrls
from tests.metering.world import World

MeterMaker = Callable[..., Meter]


@pytest.fixture
def database(transactional_db: None, postgres_urls: RoleUrls) -> Iterator[psycopg.Connection[Any]]:
    """A connection as the meter makes it; all tables are reset after the test."""
    with psycopg.connect(postgres_urls.system, autocommit=True) as connection:
        yield connection


@pytest.fixture
def valkey(fresh_redis_url: str) -> Iterator[redis.Redis]:
    """An empty Valkey."""
    with redis.Redis.from_url(fresh_redis_url) as client:
        yield client


@pytest.fixture
def world(database: psycopg.Connection[Any], valkey: redis.Redis) -> World:
    """A tenant with one dollar."""
    return World(database=database, redis=valkey).open(1_000_000_000)


@pytest.fixture
def meter_make(postgres_urls: RoleUrls, valkey: redis.Redis, world: World) -> Iterator[MeterMaker]:
    """Makes meters, a connection for each name; the same name again is that meter after a restart."""
    connections: dict[str, psycopg.Connection[Any]] = {}

    def make(consumer: str = "meter-0", *, batch: int = 1000) -> Meter:
        if consumer not in connections:
            connections[consumer] = psycopg.connect(postgres_urls.system, autocommit=True)
        stream = UsageStream(valkey, consumer=consumer)
        return Meter(stream, Poster(connections[consumer]), batch=batch, block_ms=1)

    yield make
    for connection in connections.values():
        connection.close()
