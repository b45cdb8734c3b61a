"""Three witnesses read apart from the code under test: journal files, ledger rows, and Redis."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Any, LiteralString, Self

import psycopg
import redis

from stack.running import Stack

_SETTLED_WITHIN_S = 90.0


@dataclass(frozen=True)
class Served:
    """One journal entry: who served how many tokens."""

    worker: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: str


class Books:
    """Reads a stack's journal files, its PostgreSQL (system role) and its Valkey."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def __enter__(self) -> Self:
        self.redis = redis.Redis.from_url(self._stack.redis_url, decode_responses=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.redis.close()

    def rows(self, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        """Run a query on a connection of its own: PostgreSQL may have been killed since the last one."""
        with psycopg.connect(self._stack.database_urls["DATABASE_SYSTEM_URL"]) as database:
            return database.execute(query, values).fetchall()

    def journals(self) -> dict[str, Served]:
        """Every entry of every worker's journal, from the files, by request id. No request twice."""
        served: dict[str, Served] = {}
        for worker in self._stack.workers():
            folder = self._stack.state_dir / "workers" / worker
            for path in sorted(folder.rglob("*.jsonl")):
                for line in path.read_text().splitlines():
                    entry = json.loads(line)["entry"]
                    assert entry["request_id"] not in served, "one request in two journals"
                    served[entry["request_id"]] = Served(
                        worker=worker,
                        prompt_tokens=entry["prompt_tokens"],
                        completion_tokens=entry["completion_tokens"],
                        finish_reason=entry["finish_reason"],
                    )
        return served

    def usage(self) -> dict[str, tuple[int, int, int]]:
        """(prompt tokens, completion tokens, charge in nano-dollars) of every usage record."""
        found = self.rows(
            "SELECT request_id, prompt_tokens, completion_tokens, charge_nano FROM metering_usagerecord"
        )
        return {row[0]: (row[1], row[2], row[3]) for row in found}

    def unsettled(self) -> dict[str, int]:
        """What is still on its way: holds, stream entries, held and pending money. Empty when settled."""
        left = {"holds": self.redis.zcard("tw:holds"), "stream": self.redis.xlen("tw:usage")}
        for account in self.redis.scan_iter("tw:acct:*"):
            for field in ("held", "pending", "inflight"):
                left[f"{account} {field}"] = int(self.redis.hget(account, field) or 0)  # type: ignore[arg-type]
        return {name: int(count) for name, count in left.items() if count}  # type: ignore[arg-type]

    def wait_settled(self) -> None:
        """Wait until nothing is on its way. Fails with what is left."""
        deadline = time.monotonic() + _SETTLED_WITHIN_S
        while left := self._unsettled_or_away():
            assert time.monotonic() < deadline, f"still unsettled: {left}"
            time.sleep(0.2)

    def _unsettled_or_away(self) -> object:
        try:
            return self.unsettled()
        except redis.RedisError as error:
            return error

    def check(self) -> None:
        """The three witnesses agree to the token and the nano-dollar, and the ledger balances."""
        served, usage = self.journals(), self.usage()
        assert usage.keys() == served.keys(), {
            "billed, not served": usage.keys() - served.keys(),
            "served, not billed": served.keys() - usage.keys(),
        }
        for request_id, entry in served.items():
            assert usage[request_id][:2] == (entry.prompt_tokens, entry.completion_tokens), request_id
        self._check_ledger(sum(charge for _, _, charge in usage.values()))
        assert self.redis.xlen("tw:usage:dead") == 0

    def _check_ledger(self, charged_nano: int) -> None:
        [(total,)] = self.rows("SELECT coalesce(sum(balance_nano), 0)::bigint FROM ledger_account")
        assert total == 0, "all accounts sum to zero"
        [(moved,)] = self.rows(
            "SELECT coalesce(sum(amount_nano), 0)::bigint FROM ledger_transfer "
            "WHERE kind IN ('usage_share', 'usage_levy')"
        )
        assert moved == charged_nano
        [(recomputed,)] = self.rows(
            "SELECT coalesce(sum(share + ceil(share * levy_ppm / 1000000.0)), 0)::bigint FROM ("
            "SELECT levy_ppm, ceil(((prompt_tokens - cached_tokens) * input_nano_per_mtok::numeric"
            " + cached_tokens * cached_input_nano_per_mtok::numeric"
            " + completion_tokens * output_nano_per_mtok::numeric) / 1000000) AS share"
            " FROM metering_usagerecord) AS rated"
        )
        assert recomputed == charged_nano, "charges follow from tokens and prices"
        for tenant_id, balance in self.rows(
            "SELECT owner_id, balance_nano FROM ledger_account WHERE kind = 'tenant'"
        ):
            credit = self.redis.hget(f"tw:acct:{tenant_id}", "credit")
            assert credit is None or int(credit) == balance, "Redis shows the ledger's credit"  # type: ignore[arg-type]
