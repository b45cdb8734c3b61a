"""A batch of events into usage records and transfers: one transaction, exactly once by request id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from ledger.bulk import (
    Balance,
    Owner,
    TransferDraft,
    accounts_find,
    foundation_account,
    tenant_balances,
    transfers_insert,
)
from metering.intake import Accepted, Message, Posting, Refused
from metering.records import records_insert

_POSTED_CHARGES = (
    "SELECT request_id, charge_nano FROM metering_usagerecord WHERE request_id = ANY(%s::text[])"
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch: messages whose events are in the ledger, ``fresh`` of them since now; those
    refused; and the tenants' balances after the commit."""

    posted: tuple[Message, ...] = ()
    fresh: int = 0
    refused: tuple[Refused, ...] = ()
    balances: Mapping[str, Balance] = field(default_factory=dict)

    def merged(self, later: Outcome) -> Outcome:
        """Both outcomes as one; balances of the later one win."""
        return Outcome(
            posted=self.posted + later.posted,
            fresh=self.fresh + later.fresh,
            refused=self.refused + later.refused,
            balances={**self.balances, **later.balances},
        )


class Poster:
    """Posts batches through one connection (autocommit, system role). Account ids never change: kept."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._accounts: dict[Owner, str] = {}
        self._foundation = ""

    def post(self, batch: Sequence[Accepted]) -> Outcome:
        """Post ``batch``; what the database refuses is found by halving and told in the outcome.

        Raises psycopg.OperationalError and the like when the fault is not an event's: then nothing of the
        failed part was posted, and the whole batch may be tried again.
        """
        if not batch:
            return Outcome()
        try:
            return self._post_together(batch)
        except (psycopg.DataError, psycopg.IntegrityError, UnicodeError) as error:
            if len(batch) == 1:
                return Outcome(refused=(Refused(batch[0].message, f"the ledger refused it: {error}"),))
        middle = len(batch) // 2
        return self.post(batch[:middle]).merged(self.post(batch[middle:]))

    def _post_together(self, batch: Sequence[Accepted]) -> Outcome:
        # In request order, so that two meters with the same events wait for each other and never in a circle.
        ordered = sorted(batch, key=lambda accepted: accepted.event.request_id)
        with self._connection.transaction(), self._connection.cursor() as cursor:
            known, refused = self._split_by_account(cursor, ordered)
            once = {accepted.event.request_id: accepted.event for accepted in reversed(known)}
            fresh = records_insert(cursor, [once[request_id] for request_id in sorted(once)])
            transfers_insert(cursor, [draft for key in fresh for draft in self._drafts(once[key])])
            refused += _contradictions(cursor, known, fresh)
            balances = tenant_balances(cursor, {accepted.event.tenant_id for accepted in known})
        lost = {refusal.message.message_id for refusal in refused}
        posted = (accepted.message for accepted in known if accepted.message.message_id not in lost)
        return Outcome(posted=tuple(posted), fresh=len(fresh), refused=tuple(refused), balances=balances)

    def _split_by_account(
        self, cursor: psycopg.Cursor[Any], batch: Sequence[Accepted]
    ) -> tuple[list[Accepted], list[Refused]]:
        owners = {owner for accepted in batch for owner in _owners(accepted.event)}
        missing = owners - self._accounts.keys()
        if missing:
            self._accounts.update(accounts_find(cursor, missing))
        if not self._foundation:
            self._foundation = foundation_account(cursor)
        known: list[Accepted] = []
        refused: list[Refused] = []
        for accepted in batch:
            absent = [owner for owner in _owners(accepted.event) if owner not in self._accounts]
            if absent:
                refused.append(Refused(accepted.message, f"no ledger account for {absent[0]}"))
            else:
                known.append(accepted)
        return known, refused

    def _drafts(self, event: Posting) -> list[TransferDraft]:
        tenant, partner = (self._accounts[owner] for owner in _owners(event))
        legs = (
            ("share", partner, event.charge.share_nano),
            ("levy", self._foundation, event.charge.levy_nano),
        )
        return [
            TransferDraft(
                debit=tenant,
                credit=credit,
                amount_nano=amount_nano,
                kind=f"usage_{leg}",
                reference=event.request_id,
                idempotency_key=f"usage:{event.request_id}:{leg}",
                tenant_id=event.tenant_id,
            )
            for leg, credit, amount_nano in legs
            if amount_nano
        ]


def _owners(event: Posting) -> tuple[Owner, Owner]:
    return ("tenant", event.tenant_id), ("partner", event.partner_id)


def _contradictions(
    cursor: psycopg.Cursor[Any], batch: Sequence[Accepted], fresh: Sequence[str]
) -> list[Refused]:
    """Repeats whose charge differs from the record: the record stands, the repeat goes to the dead."""
    if len(fresh) == len(batch):
        return []
    cursor.execute(_POSTED_CHARGES, ([accepted.event.request_id for accepted in batch],))
    posted: dict[str, int] = dict(cursor.fetchall())
    return [
        Refused(accepted.message, f"posted before with charge {posted[accepted.event.request_id]}")
        for accepted in batch
        if posted[accepted.event.request_id] != accepted.event.charge.charge_nano
    ]
