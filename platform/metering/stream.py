"""The usage stream in Redis: reading as a consumer group, dropping what is posted, burying what cannot be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import redis
from redis.exceptions import ResponseError

from core import redis_keys
from core.clock import clock
from ledger.bulk import Balance
from metering.intake import Message, Refused, message_read

CLAIM_IDLE_MS = 30_000


def script_text(name: str) -> str:
    """The Lua script ``name`` of this package."""
    return Path(__file__).with_name(f"{name}.lua").read_text(encoding="utf-8")


class UsageStream:
    """One consumer of the group. ``consumer`` is the same name after a restart, so its batch is found again.

    Raises redis.exceptions.ConnectionError or TimeoutError while Redis is away; any call may be repeated.
    """

    def __init__(self, client: redis.Redis, *, consumer: str) -> None:
        self._client = client
        self._consumer = consumer
        self._ack = client.register_script(script_text("ack"))
        self._dead = client.register_script(script_text("dead"))

    def own_pending(self, *, limit: int) -> list[Message]:
        """The oldest messages this consumer was given and has not finished."""
        return self._read("0", limit=limit, block_ms=None)

    def fresh(self, *, limit: int, block_ms: int) -> list[Message]:
        """Messages nobody was given yet; waits up to ``block_ms`` for the first."""
        return self._read(">", limit=limit, block_ms=block_ms)

    def abandoned(self, *, limit: int, idle_ms: int = CLAIM_IDLE_MS) -> list[Message]:
        """Take over messages whose consumer has been silent for ``idle_ms``."""
        reply = self._grouped(
            lambda: self._client.xautoclaim(
                redis_keys.USAGE_STREAM,
                redis_keys.METER_GROUP,
                self._consumer,
                min_idle_time=idle_ms,
                count=limit,
            )
        )
        return _messages(reply[1])

    def drop(self, messages: Sequence[Message], balances: Mapping[str, Balance]) -> int:
        """Finish posted ``messages`` and publish ``balances`` by tenant. Returns how many it dropped."""
        tenants = sorted({message.tenant_id for message in messages} | set(balances))
        index = {tenant_id: position for position, tenant_id in enumerate(tenants, start=1)}
        args: list[str | int] = [redis_keys.METER_GROUP, len(tenants)]
        for tenant_id in tenants:
            balance = balances.get(tenant_id)
            args += (balance.balance_nano, balance.version) if balance else ("", "")
        for message in messages:
            args += (message.message_id, index[message.tenant_id], message.charge_nano)
        keys = [redis_keys.USAGE_STREAM, *(redis_keys.account(tenant_id) for tenant_id in tenants)]
        return int(self._ack(keys=keys, args=args))

    def bury(self, refused: Refused) -> bool:
        """Move a refused message to the dead stream. False when another meter already finished it."""
        message = refused.message
        keys = [redis_keys.USAGE_STREAM, redis_keys.USAGE_DEAD, redis_keys.account(message.tenant_id)]
        args: list[str | int | bytes] = [
            redis_keys.METER_GROUP,
            message.message_id,
            message.raw,
            message.request_id,
            message.tenant_id,
            message.charge_nano,
            refused.reason,
            clock.now_ms(),
        ]
        return bool(self._dead(keys=keys, args=args))

    def waiting(self) -> int:
        """How many messages are in the stream, given out or not."""
        return int(self._client.xlen(redis_keys.USAGE_STREAM))

    def _read(self, after: str, *, limit: int, block_ms: int | None) -> list[Message]:
        reply = self._grouped(
            lambda: self._client.xreadgroup(
                redis_keys.METER_GROUP,
                self._consumer,
                {redis_keys.USAGE_STREAM: after},
                count=limit,
                block=block_ms,
            )
        )
        return _messages(reply[0][1]) if reply else []

    def _grouped(self, command: Callable[[], Any]) -> Any:
        """Run a group command; make the group first where Redis does not know it (new, or lost its data)."""
        try:
            return command()
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
        try:
            self._client.xgroup_create(redis_keys.USAGE_STREAM, redis_keys.METER_GROUP, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        return command()


def _messages(entries: list[tuple[bytes, dict[bytes, bytes] | None]]) -> list[Message]:
    return [message_read(message_id, fields or {}) for message_id, fields in entries]
