"""The events of several generations as one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from inference.engine.types import TokenEvent

Events = AsyncGenerator[TokenEvent, None]


async def merged(streams: Sequence[Events]) -> AsyncGenerator[tuple[int, TokenEvent], None]:
    """``(stream's index, event)`` as they come, until all streams have ended. Raises what a stream raises.

    Closing it closes, and thereby cancels, all of them.
    """
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for event in only:
                yield 0, event
        return
    arrived: asyncio.Queue[tuple[int, TokenEvent | None]] = asyncio.Queue()
    tasks = [asyncio.create_task(_pump(index, one, arrived)) for index, one in enumerate(streams)]
    try:
        still_open = len(tasks)
        while still_open:
            index, latest = await arrived.get()
            if latest is not None:
                yield index, latest
                continue
            still_open -= 1
            if tasks[index].done() or await _ended(tasks[index]):
                tasks[index].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(index: int, stream: Events, arrived: asyncio.Queue[tuple[int, TokenEvent | None]]) -> None:
    try:
        async with aclosing(stream) as events:
            async for event in events:
                arrived.put_nowait((index, event))
    finally:
        arrived.put_nowait((index, None))


async def _ended(task: asyncio.Task[None]) -> bool:
    """Let a task whose last word has come end."""
    await asyncio.wait({task})
    return True
