"""Signed load reports to every gateway."""

from __future__ import annotations

import asyncio
import itertools
import logging

import httpx
import orjson

from inference.messages import Heartbeat
from inference.worker.logs import log_event
from inference.worker.runtime import Runtime, Service
from inference.worker.signing import WorkerKey
from inference.worker.times import now_ms

_TIMEOUT_S = 2.0
_JSON = {"content-type": "application/json"}


class Heart:
    """Reports to all gateways; each on its own, so that one that hangs delays no other.

    Sequence numbers start at the clock, so they grow across restarts too.
    """

    def __init__(self, runtime: Runtime, service: Service, key: WorkerKey, client: httpx.AsyncClient) -> None:
        self._runtime = runtime
        self._service = service
        self._key = key
        self._client = client
        self._numbers = itertools.count(now_ms())

    async def beat(self) -> None:
        """Report until cancelled."""
        async with asyncio.TaskGroup() as group:
            for url in self._service.enrolment.gateway_urls:
                group.create_task(self._report(url.rstrip("/")))

    async def _report(self, gateway_url: str) -> None:
        interval_s = self._service.enrolment.heartbeat_interval_ms / 1000
        before = ""
        while True:
            changed = self._runtime.changed
            outcome = await self._post(f"{gateway_url}/internal/heartbeat")
            self._runtime.metrics.heartbeats.labels(outcome).inc()
            if outcome != before:
                level = logging.INFO if outcome == "204" else logging.WARNING
                log_event("heartbeat", level=level, gateway=gateway_url, outcome=outcome)
            before = outcome
            await _pause(changed, interval_s)

    async def _post(self, url: str) -> str:
        """Send one; returns the status as text, or the kind of failure."""
        beat = heartbeat_make(self._runtime, self._service, next(self._numbers))
        body = orjson.dumps(beat.to_dict() | {"signature": self._key.sign(beat.signing_bytes())})
        try:
            response = await self._client.post(url, content=body, headers=_JSON, timeout=_TIMEOUT_S)
        except httpx.HTTPError as error:
            return type(error).__name__
        return str(response.status_code)


def heartbeat_make(runtime: Runtime, service: Service, seq: int) -> Heartbeat:
    """The report of this moment."""
    stats = service.engine.stats()
    return Heartbeat(
        worker_id=service.enrolment.worker_id,
        seq=seq,
        at_ms=now_ms(),
        state=runtime.state,
        release_digest=service.release_digest,
        running=stats.running,
        queued=stats.queued,
        max_running=stats.max_running,
        pages_free=stats.pages_free,
        pages_total=stats.pages_total,
    )


async def _pause(changed: asyncio.Event, interval_s: float) -> None:
    """Wait for the next turn, which a change of state brings forward."""
    try:
        await asyncio.wait_for(changed.wait(), interval_s)
    except TimeoutError:
        return
