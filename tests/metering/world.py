"""A little consortium in a real ledger, and usage in it: what the metering tests are told in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import psycopg
import redis

from billing.rating import Price, charge_for
from core import redis_keys
from core.clock import clock
from core.ids import new_id
from ledger.bulk import TransferDraft, transfers_insert
from metering.events import ENCODER, UsageEvent
from metering.holds import SETTLE_LUA, settle_args, settle_keys

PRICE = Price(
    offer_id="off_00000000000000000000000000",
    input_nano_per_mtok=100_000_000,
    cached_input_nano_per_mtok=25_000_000,
    output_nano_per_mtok=123_456_789,
    levy_ppm=50_000,
)
FOUNDATION = "foundation"


@dataclass(frozen=True)
class World:
    """One tenant with money and one partner, in PostgreSQL and Redis; connections of the system role."""

    database: psycopg.Connection[Any]
    redis: redis.Redis
    tenant_id: str = field(default_factory=lambda: new_id("ten"))
    partner_id: str = field(default_factory=lambda: new_id("par"))
    key_id: str = field(default_factory=lambda: new_id("key"))

    def open(self, credit_nano: int) -> World:
        """Open the accounts and grant ``credit_nano``; publish it to Redis as the directory would."""
        outside = self._account("external", "external", None)
        self._account("foundation", FOUNDATION, None)
        self._account("partner", self.partner_id, None)
        tenant = self._account("tenant", self.tenant_id, self.tenant_id)
        grant = TransferDraft(
            debit=outside,
            credit=tenant,
            amount_nano=credit_nano,
            kind="grant",
            reference="grant",
            idempotency_key=f"grant:{self.tenant_id}",
            tenant_id=self.tenant_id,
        )
        with self.database.transaction(), self.database.cursor() as cursor:
            transfers_insert(cursor, [grant])
        self.redis.hset(redis_keys.account(self.tenant_id), mapping={"credit": credit_nano, "version": 1})
        return self

    def event(self, **changes: Any) -> UsageEvent:
        """A well-formed event of this tenant, with ``changes``; the charge follows the counts."""
        fields: dict[str, Any] = {
            "request_id": new_id("req"),
            "tenant_id": self.tenant_id,
            "project_id": new_id("prj"),
            "api_key_id": self.key_id,
            "partner_id": self.partner_id,
            "pool_id": new_id("pol"),
            "worker_id": new_id("wrk"),
            "release_id": new_id("rel"),
            "model": "tokenworks-nano",
            "endpoint": "/v1/chat/completions",
            "prompt_tokens": 120,
            "cached_tokens": 20,
            "completion_tokens": 33,
            "finish_reason": "stop",
            "price": PRICE,
            "received_at_ms": clock.now_ms() - 250,
            "first_token_at_ms": clock.now_ms() - 200,
            "finished_at_ms": clock.now_ms(),
            "witness": "both",
            "receipt": {"entry": {"seq": 1}},
            "decision": {"chosen": 0},
            **changes,
        }
        counts = {name: fields[name] for name in ("prompt_tokens", "cached_tokens", "completion_tokens")}
        charge = charge_for(price=fields["price"], **counts)
        return UsageEvent(**{"charge": charge, **fields})

    def settle(self, event: UsageEvent) -> bool:
        """Settle ``event`` as a gateway does. False when it was settled before."""
        return self.settle_raw(event.request_id, event.charge.charge_nano, ENCODER.encode(event))

    def settle_raw(self, request_id: str, charge_nano: int, event: bytes) -> bool:
        """The settle script with these arguments; ``event`` may be anything, empty voids."""
        keys = settle_keys(request_id=request_id, tenant_id=self.tenant_id, key_id=self.key_id)
        args = settle_args(request_id=request_id, charge_nano=charge_nano, tokens=0, event=event)
        return bool(self.redis.eval(SETTLE_LUA, len(keys), *keys, *args))

    def hold(self, amount_nano: int, **fields: str | int) -> str:
        """Set ``amount_nano`` aside as admission does; returns the request id."""
        request_id = new_id("req")
        created_ms = int(fields.pop("created_ms", clock.now_ms()))
        mapping: Any = {
            "tenant_id": self.tenant_id,
            "project_id": new_id("prj"),
            "key_id": self.key_id,
            "amount_nano": amount_nano,
            "tokens": 0,
            "gateway_id": "gw_gone",
            "created_ms": created_ms,
            "context": "{}",
            **fields,
        }
        self.redis.hset(redis_keys.hold(request_id), mapping=mapping)
        self.redis.zadd(redis_keys.HOLDS, {request_id: created_ms})
        self.redis.hincrby(redis_keys.account(self.tenant_id), "held", amount_nano)
        self.redis.hincrby(redis_keys.account(self.tenant_id), "inflight", 1)
        self.redis.hincrby(redis_keys.bucket(self.key_id), "inflight", 1)
        return request_id

    def account(self) -> dict[str, int]:
        """The tenant's account hash in Redis as numbers."""
        raw: Any = self.redis.hgetall(redis_keys.account(self.tenant_id))
        return {name.decode(): int(value) for name, value in raw.items()}

    def available(self) -> int:
        """credit − pending − held, as admission computes it."""
        account = self.account()
        return account["credit"] - account.get("pending", 0) - account.get("held", 0)

    def balance(self, kind: str = "tenant", owner_id: str | None = None) -> int:
        """A ledger balance: the tenant's, or that of ``kind`` and ``owner_id``."""
        row = self.database.execute(
            "SELECT balance_nano FROM ledger_account WHERE kind = %s AND owner_id = %s",
            (kind, owner_id or self.tenant_id),
        ).fetchone()
        assert row is not None
        return int(row[0])

    def records(self) -> dict[str, int]:
        """Charges of this tenant's usage records by request id."""
        rows = self.database.execute(
            "SELECT request_id, charge_nano FROM metering_usagerecord WHERE tenant_id = %s", (self.tenant_id,)
        )
        return dict(rows.fetchall())

    def ledger_sum(self) -> int:
        """Sum over all accounts: always 0."""
        row = self.database.execute("SELECT coalesce(sum(balance_nano), 0) FROM ledger_account").fetchone()
        assert row is not None
        return int(row[0])

    def _account(self, kind: str, owner_id: str, tenant_id: str | None) -> str:
        self.database.execute(
            "INSERT INTO ledger_account (id, kind, owner_id, tenant_id, balance_nano, version)"
            " VALUES (%s, %s, %s, %s, 0, 0) ON CONFLICT DO NOTHING",
            (new_id("acc"), kind, owner_id, tenant_id),
        )
        row = self.database.execute(
            "SELECT id FROM ledger_account WHERE kind = %s AND owner_id = %s", (kind, owner_id)
        ).fetchone()
        assert row is not None
        return str(row[0])


def dead_letters(client: redis.Redis) -> list[dict[str, str]]:
    """What the meter refused, oldest first."""
    entries: Any = client.xrange(redis_keys.USAGE_DEAD)
    return [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in entries]


def raw_event(event: UsageEvent, **changes: Any) -> bytes:
    """The event as JSON with fields replaced by anything at all."""
    return msgspec.json.encode({**msgspec.to_builtins(event), **changes})
