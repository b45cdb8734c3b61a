"""From the local journal to Redis: check, countersign, settle, in order, for as long as it takes.

The journal is the queue. The cursor moves on only after Redis confirmed a batch; it moves back to replay
when Redis restarted or was published anew, which is harmless: a settled request settles once.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
import structlog

from core.signing import SigningKey
from gateway.flight import DECODER, ENCODER, Settlement
from gateway.journal import Journal, Mark
from gateway.redis_link import Argument, RedisAwayError, RedisLink, RedisReplyError, Script
from metering.holds import SETTLE_LUA, settle_args, settle_keys
from transparency.receipts import receipt_countersign

_LOG = structlog.get_logger("gateway.settler")
SETTLE = Script(SETTLE_LUA)
_BATCH_BYTES = 128 * 1024
_REPLAY_S = 50 * 60  # within the life of a settled marker
_KEEP_S = 55 * 60
_KEEP_BYTES = 2 * 1024**3
_SAVE_INTERVAL_S = 1.0
_RETRY_S = 0.2
_GATHER_S = 0.02  # a short wait makes batches: one thread hop and one round trip serve many receipts


class Settler:
    """One background task. ``wake`` it after appending; ``replay`` it when Redis may have forgotten."""

    def __init__(self, journal: Journal, redis: RedisLink, key: SigningKey) -> None:
        self._journal = journal
        self._redis = redis
        self._key = key
        self._mark = journal.mark_load()
        self._saved = self._mark
        self._event = asyncio.Event()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="countersign")
        self._task: asyncio.Task[None] | None = None
        self.settled = 0

    def start(self) -> None:
        """Begin with what an earlier life left unsettled."""
        self._task = asyncio.create_task(self._run())

    async def stop(self, *, drain_s: float) -> None:
        """Settle what is left, for ``drain_s`` at most; the rest stays in the journal."""
        deadline = time.monotonic() + drain_s
        while not self.idle and self._redis.connected and time.monotonic() < deadline:
            self._event.set()
            await asyncio.sleep(0.01)
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._executor.shutdown()
        self._save()

    @property
    def idle(self) -> bool:
        """Whether everything in the journal is settled."""
        return self._mark.position >= self._journal.end

    @property
    def backlog_bytes(self) -> int:
        """Journal bytes not settled yet."""
        return self._journal.backlog_bytes(self._mark.position)

    def wake(self) -> None:
        """There is something new in the journal."""
        self._event.set()

    def redis_seen(self, *, server_run: str, epoch: str) -> None:
        """Compare Redis's life and epoch with those settled into; replay the last hour when they differ."""
        mark = self._mark
        if (mark.server_run, mark.epoch) == (server_run, epoch):
            return
        position = mark.position
        if mark.server_run or mark.epoch:
            position = min(position, self._journal.start_since(time.time() - _REPLAY_S))
            _LOG.warning("settlements_replayed", since_segment=position.segment)
        self._mark = Mark(position, server_run, epoch)
        self._event.set()

    async def _run(self) -> None:
        save_at = time.monotonic() + _SAVE_INTERVAL_S
        while True:
            try:
                moved = await self._step()
                if time.monotonic() >= save_at:
                    save_at = time.monotonic() + _SAVE_INTERVAL_S
                    self._save()
            except (RedisAwayError, RedisReplyError, OSError) as error:  # OSError: no disk, or no file left
                _LOG.warning("settle_waits", error=str(error))
                moved = False
                await asyncio.sleep(_RETRY_S)
            if not moved:
                self._event.clear()
                if self.idle:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._event.wait(), _SAVE_INTERVAL_S)
                        await asyncio.sleep(_GATHER_S)

    async def _step(self) -> bool:
        """Settle one batch; False when there was none."""
        mark = self._mark
        lines, position = self._journal.read(mark.position, _BATCH_BYTES)
        if position == mark.position:
            return False
        if lines:
            loop = asyncio.get_running_loop()
            commands = await loop.run_in_executor(self._executor, self._commands, lines)
            await self._send(commands)
            self.settled += len(commands)
        if self._mark.position == mark.position:  # else a replay began meanwhile
            self._mark = self._mark._replace(position=position)
        return True

    async def _send(self, commands: Sequence[Sequence[Argument]]) -> None:
        try:
            await self._redis.pipeline(commands)
        except RedisReplyError as error:
            if not str(error).startswith("NOSCRIPT"):
                raise
            await self._redis.call("SCRIPT", "LOAD", SETTLE.source)
            await self._redis.pipeline(commands)

    def _commands(self, lines: Sequence[bytes]) -> list[Sequence[Argument]]:
        commands: list[Sequence[Argument]] = []
        for line in lines:
            try:
                settlement = DECODER.decode(line)
            except msgspec.DecodeError:
                if line:
                    _LOG.error("journal_line_skipped", bytes=len(line))
                continue
            commands.append(settle_command(settlement, self._key))
        return commands

    def _save(self) -> None:
        if self._mark == self._saved:
            return
        self._journal.mark_save(self._mark)
        self._saved = self._mark
        keep_since = time.time() - _KEEP_S
        self._journal.trim(self._mark.position, older_than_unix_s=keep_since, bytes_max=_KEEP_BYTES)


def settle_command(settlement: Settlement, key: SigningKey) -> Sequence[Argument]:
    """The Redis command that ends the hold, with the receipt checked and countersigned."""
    event = b""
    if settlement.event is not None:
        receipt = receipt_countersign(settlement.event.receipt, key)
        event = ENCODER.encode(msgspec.structs.replace(settlement.event, receipt=receipt))
    keys = settle_keys(
        request_id=settlement.request_id, tenant_id=settlement.tenant_id, key_id=settlement.key_id
    )
    arguments = settle_args(
        request_id=settlement.request_id,
        charge_nano=settlement.charge_nano,
        tokens=settlement.tokens,
        event=event,
    )
    return ("EVALSHA", SETTLE.sha, len(keys), *keys, *arguments)
