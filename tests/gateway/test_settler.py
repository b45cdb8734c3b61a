"""The settler outlives what goes wrong beneath it: what waits is settled as soon as it can be."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from core.clock import clock
from core.ids import new_id
from core.signing import signing_key_load
from gateway.flight import ENCODER, Settlement
from gateway.journal import Journal
from gateway.redis_link import Argument, RedisLink
from gateway.settler import Settler


class Redis:
    """Takes everything it is sent."""

    connected = True

    def __init__(self) -> None:
        self.taken = asyncio.Semaphore(0)

    async def pipeline(self, commands: Sequence[Sequence[Argument]]) -> list[int]:
        for _ in commands:
            self.taken.release()
        return [1] * len(commands)


def void() -> bytes:
    return ENCODER.encode(
        Settlement(
            at_ms=clock.now_ms(), request_id=new_id("req"), tenant_id="", key_id="", charge_nano=0, tokens=0
        )
    )


@pytest.mark.parametrize("step", ["read", "mark_save"])
async def test_a_disk_that_fails_for_a_while_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    journal, redis, failures = Journal(tmp_path / "journal", segment_bytes=10_000), Redis(), [1, 1]
    whole = getattr(journal, step)

    def fail_twice(*arguments: object) -> object:
        if failures:
            failures.pop()
            raise OSError(errno.EMFILE, "too many open files")
        return whole(*arguments)

    monkeypatch.setattr(journal, step, fail_twice)
    monkeypatch.setattr("gateway.settler._SAVE_INTERVAL_S", 0.02)
    monkeypatch.setattr("gateway.settler._RETRY_S", 0.01)
    settler = Settler(journal, cast("RedisLink", redis), signing_key_load(tmp_path / "key.pem"))
    settler.start()
    async with asyncio.timeout(20):
        for _ in range(10):
            journal.append(void())
            settler.wake()
            await redis.taken.acquire()
            await asyncio.sleep(0.02)
        await settler.stop(drain_s=1.0)
    journal.close()
    assert not failures
    assert Journal(tmp_path / "journal", segment_bytes=10_000).mark_load().position == journal.end
