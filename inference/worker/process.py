"""The life of the process: listen, load, enrol, serve, drain."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx

from inference.worker.ahead import Ahead
from inference.worker.grammars import grammars_close
from inference.worker.lifecycle import runtime_drain, stop_signals_watch
from inference.worker.logs import log_event
from inference.worker.membership.errors import ConfigurationError
from inference.worker.membership.heartbeat import Heart
from inference.worker.options import WorkerOptions
from inference.worker.ports import EnginePort
from inference.worker.runtime import Runtime
from inference.worker.server.app import WorkerApp
from inference.worker.server.http import HttpServer, listener_bind
from inference.worker.startup import Loaded, files_load, service_start

_T = TypeVar("_T")


async def worker_run(options: WorkerOptions, ahead: Ahead | None = None) -> int:
    """Run one worker until a signal ends it; returns the exit status. `ahead` is what has begun already.
    Raises StartupError's kinds.
    """
    stopping = stop_signals_watch()
    runtime = Runtime(release=options.release)
    async with _listening(options, runtime) as endpoint, httpx.AsyncClient() as client:
        loaded = await files_load(options, ahead)  # cannot be broken off: a signal counts from here on
        try:
            service = await _unless(stopping, service_start(options, loaded, endpoint, client))
            if service is None:
                return os.EX_OK
            runtime.begin(service)
            log_event("ready", worker_id=service.enrolment.worker_id, endpoint=endpoint)
            beats = Heart(runtime, service, loaded.key, client).beat()
            return await _serve(runtime, stopping, beats, service.engine)
        finally:
            await _unload(loaded)


async def _serve(
    runtime: Runtime, stopping: asyncio.Event, beats: Coroutine[Any, Any, None], engine: EnginePort
) -> int:
    """Until a signal, or until the engine or the heartbeats fail; heartbeats go on while draining."""
    heart = asyncio.create_task(beats)
    engine_end = asyncio.create_task(engine.ended())
    waits = [engine_end, *(asyncio.create_task(event.wait()) for event in (stopping, runtime.failed))]
    try:
        await asyncio.wait({heart, *waits}, return_when=asyncio.FIRST_COMPLETED)
        if engine_end.done():
            runtime.fail("The engine stopped.")
        await runtime_drain(runtime)
        if heart.done():
            heart.result()
        return os.EX_OK if runtime.failure is None else os.EX_SOFTWARE
    finally:
        for task in (heart, *waits):
            task.cancel()


@asynccontextmanager
async def _listening(options: WorkerOptions, runtime: Runtime) -> AsyncIterator[str]:
    """Serve health from the first moment; yields the URL gateways use."""
    try:
        listener = listener_bind(options.host, options.port)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {options.host}:{options.port}: {error.strerror}"
        ) from None
    port = listener.getsockname()[1]
    host = f"[{options.host}]" if ":" in options.host else options.host
    http = HttpServer(WorkerApp(runtime), listener)
    try:
        yield options.public_url or f"http://{host}:{port}"
    finally:
        await http.stop()


async def _unload(loaded: Loaded) -> None:
    await loaded.engine.close()
    grammars_close(loaded.engine.tokenizer)
    loaded.journal.close()


async def _unless(stopping: asyncio.Event, work: Coroutine[Any, Any, _T]) -> _T | None:
    """The result of ``work``, or None when the signal to stop comes first."""
    task = asyncio.create_task(work)
    stop = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        stop.cancel()
        task.cancel()
