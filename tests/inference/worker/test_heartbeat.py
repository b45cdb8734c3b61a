"""Heartbeats: signed, counted up, sent to every gateway whatever the others do."""

from __future__ import annotations

import asyncio
import dataclasses
from itertools import pairwise
from typing import Any

import httpx

from inference.worker.membership.heartbeat import Heart


async def test_heartbeats_report_state_and_load_to_every_gateway(worker: Any, utility: Any) -> None:
    service = worker.runtime.service
    dead = "http://127.0.0.1:1"
    service.enrolment = dataclasses.replace(
        service.enrolment, gateway_urls=[dead, f"{utility.url}/"], heartbeat_interval_ms=10
    )
    utility.enrolled = [{"public_key": worker.key.public_text}]
    async with httpx.AsyncClient() as client:
        heart = asyncio.create_task(Heart(worker.runtime, service, worker.key, client).beat())
        beat = await utility.beat_in("ready")
        assert (beat.worker_id, beat.release_digest) == ("wrk_1", "ab" * 32)
        assert (beat.running, beat.queued, beat.max_running) == (0, 0, 4)
        assert (beat.pages_free, beat.pages_total) == (5, 8)
        await utility.beat_count(5)
        heart.cancel()
    numbers = [beat.seq for beat in utility.heartbeats]
    assert all(later > earlier for earlier, later in pairwise(numbers))
    assert numbers[0] >= utility.heartbeats[0].at_ms - 60_000
    metrics = worker.runtime.metrics.render().decode()
    assert 'tokenworks_worker_heartbeats_total{outcome="204"}' in metrics
    assert 'tokenworks_worker_heartbeats_total{outcome="ConnectError"}' in metrics


async def test_a_change_of_state_is_told_at_once_and_refusals_are_survived(worker: Any, utility: Any) -> None:
    service = worker.runtime.service
    service.enrolment = dataclasses.replace(
        service.enrolment, gateway_urls=[utility.url], heartbeat_interval_ms=3_600_000
    )
    utility.enrolled = [{"public_key": worker.key.public_text}]
    utility.heartbeat_status = 404
    async with httpx.AsyncClient() as client:
        heart = asyncio.create_task(Heart(worker.runtime, service, worker.key, client).beat())
        await utility.beat_in("ready")
        await asyncio.sleep(0.02)
        worker.runtime.drain()
        await utility.beat_in("draining")
        assert len(utility.heartbeats) == 2
        heart.cancel()
