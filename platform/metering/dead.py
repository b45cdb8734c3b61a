"""Dead letters: ``python -m metering.dead`` lists them, with ``--retry`` gives them to the meter again."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from typing import Any

import redis

from core import redis_keys
from metering.stream import script_text


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event the meter refused. It is no longer in ``pending``: nobody was charged for it."""

    entry_id: str
    request_id: str
    tenant_id: str
    charge_nano: int
    reason: str
    at_ms: int
    event: bytes


def dead_letters(client: redis.Redis, *, limit: int = 1000) -> list[DeadLetter]:
    """The oldest ``limit`` dead letters."""
    entries: Any = client.xrange(redis_keys.USAGE_DEAD, count=limit)
    return [
        DeadLetter(
            entry_id=entry_id.decode(),
            request_id=fields[b"request_id"].decode(errors="replace"),
            tenant_id=fields[b"tenant_id"].decode(errors="replace"),
            charge_nano=int(fields[b"charge_nano"]),
            reason=fields[b"reason"].decode(errors="replace"),
            at_ms=int(fields[b"at_ms"]),
            event=fields[b"event"],
        )
        for entry_id, fields in entries
    ]


def dead_letter_retry(client: redis.Redis, letter: DeadLetter) -> bool:
    """Put the event back into the usage stream, its charge pending again. False when someone else did."""
    keys = [redis_keys.USAGE_DEAD, redis_keys.USAGE_STREAM, redis_keys.account(letter.tenant_id)]
    args: list[str | bytes | int] = [
        letter.entry_id,
        letter.event,
        letter.request_id,
        letter.tenant_id,
        letter.charge_nano,
    ]
    return bool(client.register_script(script_text("revive"))(keys=keys, args=args))


def main() -> int:
    """List dead letters or retry them; exit 1 while there are any."""
    parser = argparse.ArgumentParser(prog="python -m metering.dead", description=__doc__)
    parser.add_argument("--retry", action="store_true", help="give every dead letter to the meter again")
    options = parser.parse_args()
    client = redis.Redis.from_url(os.environ["REDIS_URL"])
    letters = dead_letters(client)
    for letter in letters:
        done = options.retry and dead_letter_retry(client, letter)
        state = "retried" if done else "dead"
        sys.stdout.write(f"{state} {letter.request_id} {letter.charge_nano} nano-dollars: {letter.reason}\n")
    return 1 if letters and not options.retry else 0


if __name__ == "__main__":
    sys.exit(main())
