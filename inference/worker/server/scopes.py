"""What surrounds a request while it is in flight: its place in the register, and two small watchers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, cast

from inference.worker.runtime import Runtime
from inference.worker.server.asgi import Receive
from inference.worker.server.flight import CLIENT_GONE, CLIENT_STALLED, Flight
from inference.worker.server.writers import Writer

KEEP_ALIVE_S = 10.0
STALL_S = 60.0  # a client that takes nothing for so long is not coming back for more
_LOOK_S = 10.0


@contextmanager
def registered(runtime: Runtime, flight: Flight) -> Iterator[None]:
    """Keep the flight where drains and duplicate checks find it."""
    runtime.in_flight[flight.request_id] = flight
    try:
        yield
    finally:
        del runtime.in_flight[flight.request_id]


@contextmanager
def watching(receive: Receive, flight: Flight) -> Iterator[None]:
    """Interrupt the flight when its client closes the connection, or takes nothing for STALL_S."""

    async def watch() -> None:
        while not flight.stalled(STALL_S):
            try:
                async with asyncio.timeout(min(_LOOK_S, STALL_S)):
                    if (await receive())["type"] == "http.disconnect":
                        flight.interrupt(CLIENT_GONE)
                        return
            except TimeoutError:
                continue
        flight.interrupt(CLIENT_STALLED)

    with background(watch()):
        yield


async def keep_alive(writer: Writer) -> None:
    """Tell a waiting client every KEEP_ALIVE_S that its request is still queued."""
    while True:
        await asyncio.sleep(KEEP_ALIVE_S)
        await writer.keep_alive()


@contextmanager
def background(work: Coroutine[Any, Any, None]) -> Iterator[asyncio.Task[None]]:
    """Run ``work`` beside the block and cancel it at the end."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()


def current_task() -> asyncio.Task[Any]:
    """The task that runs this request."""
    return cast("asyncio.Task[Any]", asyncio.current_task())
