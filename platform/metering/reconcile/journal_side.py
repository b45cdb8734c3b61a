"""One worker's journal against the usage records that name it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from billing.rating import Price, charge_for
from core.clock import clock
from inference.messages import JournalEntry, SignedEntry
from metering.journals import WorkerAddress, entry_is_signed
from metering.models import UsageRecord
from tenants.scope import system_scope

PAGE = 500
Open = Callable[[Sequence[str]], set[str]]


@dataclass(slots=True)
class WorkerTally:
    """Counts and sums of one worker; the lists name requests that differ.

    ``missing``: journalled, not billed. ``extra``: billed, not journalled. ``mismatched``: other counts, an
    unsigned entry, or a charge that does not follow from the counts. Not differences: ``open`` (on the way to
    the ledger), ``failed`` (the worker's own error, or an end before the first token: not billed),
    ``failed_over`` (billed to another worker).
    """

    worker_id: str
    name: str
    partner_id: str
    entries: int = 0
    journal_tokens: int = 0
    billed: int = 0
    billed_tokens: int = 0
    billed_nano: int = 0
    due_nano: int = 0
    open: int = 0
    failed: int = 0
    failed_over: int = 0
    missing: list[str] = field(default_factory=list)
    extra: list[str] = field(default_factory=list)
    mismatched: list[str] = field(default_factory=list)
    unreachable: str = ""

    @property
    def agrees(self) -> bool:
        """Whether there is no difference at all."""
        return not (self.missing or self.extra or self.mismatched or self.unreachable)


def worker_tally(worker: WorkerAddress, entries: Iterable[SignedEntry], open_requests: Open) -> WorkerTally:
    """Compare ``entries`` with the records, a page at a time.

    ``open_requests`` picks the requests that are still on their way to the ledger.
    """
    started_at = clock.now()
    tally = WorkerTally(worker.worker_id, worker.name, worker.partner_id)
    matched: set[str] = set()
    remaining = iter(entries)
    while page := list(islice(remaining, PAGE)):
        _page_compare(worker, page, tally, matched, open_requests)
    with system_scope():
        for record in UsageRecord.objects.filter(worker_id=worker.worker_id).iterator(PAGE):
            tally.billed += 1
            tally.billed_tokens += record.prompt_tokens + record.completion_tokens
            tally.billed_nano += record.charge_nano
            if record.request_id not in matched and record.posted_at < started_at:
                tally.extra.append(record.request_id)
    return tally


def _page_compare(
    worker: WorkerAddress,
    page: Sequence[SignedEntry],
    tally: WorkerTally,
    matched: set[str],
    open_requests: Open,
) -> None:
    ids = [signed.entry.request_id for signed in page]
    with system_scope():
        records = UsageRecord.objects.in_bulk(ids)
    unbilled = [signed.entry for signed in page if signed.entry.request_id not in records]
    under_way = open_requests([entry.request_id for entry in unbilled]) if unbilled else set()
    for signed in page:
        entry = signed.entry
        tally.entries += 1
        tally.journal_tokens += entry.prompt_tokens + entry.completion_tokens
        record = records.get(entry.request_id)
        if record is None:
            _unbilled(entry, tally, under_way)
        elif record.worker_id != worker.worker_id:
            _elsewhere(entry, tally)
        else:
            matched.add(entry.request_id)
            due_nano = _due_nano(entry, record)
            tally.due_nano += due_nano or 0
            if due_nano != record.charge_nano or not entry_is_signed(worker, signed):
                tally.mismatched.append(entry.request_id)


def _unbilled(entry: JournalEntry, tally: WorkerTally, under_way: set[str]) -> None:
    if entry.request_id in under_way:
        tally.open += 1
    elif entry.finish_reason == "error" or not entry.prompt_tokens + entry.completion_tokens:
        tally.failed += 1
    else:
        tally.missing.append(entry.request_id)


def _elsewhere(entry: JournalEntry, tally: WorkerTally) -> None:
    if entry.finish_reason in ("error", "cancelled"):
        tally.failed_over += 1
    else:
        tally.missing.append(entry.request_id)


def _due_nano(entry: JournalEntry, record: UsageRecord) -> int | None:
    """What the entry costs at the record's price; None when record and entry count differently."""
    counted = (entry.prompt_tokens, entry.cached_tokens, entry.completion_tokens)
    if counted != (record.prompt_tokens, record.cached_tokens, record.completion_tokens):
        return None
    price = Price(
        offer_id=record.offer_id,
        input_nano_per_mtok=record.input_nano_per_mtok,
        cached_input_nano_per_mtok=record.cached_input_nano_per_mtok,
        output_nano_per_mtok=record.output_nano_per_mtok,
        levy_ppm=record.levy_ppm,
    )
    charge = charge_for(
        price=price,
        prompt_tokens=entry.prompt_tokens,
        cached_tokens=entry.cached_tokens,
        completion_tokens=entry.completion_tokens,
    )
    return charge.charge_nano
