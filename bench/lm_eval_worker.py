"""A worker that serves one checkpoint without a utility around it."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from inference.engine import AsyncEngine, EngineConfig
from inference.messages import HEADER_REQUEST_ID, Enrolment
from inference.worker.journal.journal import Journal
from inference.worker.runtime import Runtime, Service
from inference.worker.server.app import WorkerApp
from inference.worker.server.asgi import Receive, Scope, Send
from inference.worker.server.http import HttpServer, listener_bind
from inference.worker.signing import key_load

TOKEN = secrets.token_urlsafe(24)


class Numbered:
    """Gives each request the id that the gateway would have given it."""

    def __init__(self, app: WorkerApp) -> None:
        self._app = app
        self._numbers = itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        number = f"req_eval{next(self._numbers)}".encode()
        headers = [*scope["headers"], (HEADER_REQUEST_ID.encode(), number)]
        await self._app({**scope, "headers": headers}, receive, send)


@asynccontextmanager
async def worker_serving(model: Path, folder: Path, config: EngineConfig) -> AsyncIterator[str]:
    """The address of a worker with the real engine; its journal and key lie in `folder`, which is there."""
    engine = AsyncEngine.load(model, config)
    await engine.start()
    journal = Journal(folder / "journal", key_load(folder / "signing.pem"))
    enrolment = Enrolment("worker", "pool", "partner", TOKEN, ["http://127.0.0.1:1"], 1000)
    runtime = Runtime(release="tokenworks")
    runtime.begin(Service(engine=engine, journal=journal, enrolment=enrolment, release_digest="00" * 32))
    listener = listener_bind("127.0.0.1", 0)
    server = HttpServer(Numbered(WorkerApp(runtime)), listener)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        await server.stop()
        await engine.close()
        journal.close()
