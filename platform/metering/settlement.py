"""Settling a hold: the one script that gateways and the sweeper share. Free of Django.

State it works on (names in ``core.redis_keys``; every amount is whole nano-dollars):

========================  =======================================================================
``tw:hold:<request>``     hash ``tenant_id key_id amount_nano gateway_id created_ms context``
``tw:holds``              sorted set of request ids by ``created_ms``
``tw:acct:<tenant>``      hash ``credit version`` (from the ledger), ``pending`` (settled, not yet in the
                          ledger), ``held``; available = credit − pending − held. Without ``credit`` the
                          account is unknown here, even when ``pending`` exists.
``tw:rate:<key>``         field ``inflight``: requests of this key now held
``tw:usage``              stream ``event request_id tenant_id charge_nano``; the last two repeat what went
                          into ``pending``, so that even an unreadable event can be taken out of it
``tw:settled:<request>``  ``charged`` or ``void`` for an hour: makes settling idempotent
========================  =======================================================================
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from core import redis_keys

SETTLE_LUA = Path(__file__).with_name("settle.lua").read_text(encoding="utf-8")
SETTLE_SHA = hashlib.sha1(SETTLE_LUA.encode(), usedforsecurity=False).hexdigest()
MARKER_SECONDS = 3600

SETTLE_NOTHING = 0
SETTLE_DONE = 1
SETTLE_NO_HOLD = 2


def settle_keys_and_args(
    request_id: str, tenant_id: str, key_id: str, charge_nano: int, event_json: bytes | None
) -> tuple[list[str], list[bytes | str | int]]:
    """Keys and arguments of ``SETTLE_LUA`` (send by EVALSHA ``SETTLE_SHA`` or EVAL).

    ``event_json`` None voids: the hold is released and nothing is owed. Raises ValueError for a negative
    charge and for a void that charges.
    """
    if charge_nano < 0 or (event_json is None and charge_nano):
        raise ValueError("a charge is never negative, and a void charges nothing")
    keys = [
        redis_keys.settled(request_id),
        redis_keys.hold(request_id),
        redis_keys.HOLDS,
        redis_keys.account(tenant_id),
        redis_keys.bucket(key_id),
        redis_keys.USAGE_STREAM,
    ]
    return keys, [request_id, tenant_id, charge_nano, event_json or b"", MARKER_SECONDS]
