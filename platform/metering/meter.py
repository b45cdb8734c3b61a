"""One consumer's round: read a batch, check it, post it, drop it. Exactly once, see docs/metering.md."""

from __future__ import annotations

import time
from collections.abc import Sequence

import structlog

from metering import metrics
from metering.intake import Accepted, Message, Refused, event_check
from metering.posting import Outcome, Poster
from metering.stream import UsageStream

BATCH = 1000
BLOCK_MS = 500
CLAIM_EVERY_S = 10.0

log = structlog.get_logger()


class Meter:
    """``step`` raises when PostgreSQL or Redis is away; a new Meter of the same consumer then goes on."""

    def __init__(
        self, stream: UsageStream, poster: Poster, *, batch: int = BATCH, block_ms: int = BLOCK_MS
    ) -> None:
        self._stream = stream
        self._poster = poster
        self._batch = batch
        self._block_ms = block_ms
        self._recovering = True
        self._claim_at = 0.0

    def step(self) -> int:
        """One batch from stream to ledger; returns how many messages it finished (0: nothing came)."""
        messages = self.read()
        if not messages:
            return 0
        outcome = self.post(messages)
        self.finish(outcome)
        return len(messages)

    def read(self) -> list[Message]:
        """The next batch: own unfinished messages, then abandoned ones, then new ones."""
        if self._recovering:
            messages = self._stream.own_pending(limit=self._batch)
            if messages:
                return messages
            self._recovering = False
        if time.monotonic() >= self._claim_at:
            messages = self._stream.abandoned(limit=self._batch)
            if messages:
                return messages
            self._claim_at = time.monotonic() + CLAIM_EVERY_S
        return self._stream.fresh(limit=self._batch, block_ms=self._block_ms)

    def post(self, messages: Sequence[Message]) -> Outcome:
        """Check and post; when this returns, the ledger has committed."""
        accepted: list[Accepted] = []
        refused: list[Refused] = []
        for checked in map(event_check, messages):
            if isinstance(checked, Accepted):
                accepted.append(checked)
            else:
                refused.append(checked)
        with metrics.POST_SECONDS.time():
            return Outcome(refused=tuple(refused)).merged(self._poster.post(accepted))

    def finish(self, outcome: Outcome) -> None:
        """Bury what was refused, drop the rest, publish balances. Harmless when done before."""
        for refused in outcome.refused:
            if self._stream.bury(refused):
                metrics.DEAD.inc()
                log.error(
                    "usage event refused",
                    request_id=refused.message.request_id,
                    message_id=refused.message.message_id,
                    reason=refused.reason,
                )
        self._stream.drop(outcome.posted, outcome.balances)
        metrics.POSTED.inc(outcome.fresh)
        metrics.REPEATED.inc(len(outcome.posted) - outcome.fresh)
        metrics.WAITING.set(self._stream.waiting())
