"""The report for people."""

from __future__ import annotations

from rich.table import Table

from core.money import format_dollars
from metering.reconcile.journal_side import WorkerTally
from metering.reconcile.report import Report

SHOWN = 20


def report_tables(report: Report) -> list[Table | str]:
    """Two tables, the requests that differ (the first of each kind), and the verdict."""
    verdict = "Journals, records and ledger agree." if report.agrees else "There are differences."
    differences = [line for tally in report.workers for line in _differences(tally)]
    return [_journal_table(report), _ledger_table(report), *differences, verdict]


def _journal_table(report: Report) -> Table:
    table = Table(title="Workers' journals and usage records")
    for name in ("worker", "entries", "tokens", "billed", "billed tokens", "billed", "open", "failed",
                 "failed over", "missing", "extra", "mismatched"):  # fmt: skip
        table.add_column(name, justify="left" if name == "worker" else "right")
    for tally in report.workers:
        counts = (tally.open, tally.failed, tally.failed_over)
        differing = (len(tally.missing), len(tally.extra), len(tally.mismatched))
        table.add_row(
            f"{tally.name} {tally.unreachable}".strip(),
            str(tally.entries),
            str(tally.journal_tokens),
            str(tally.billed),
            str(tally.billed_tokens),
            format_dollars(tally.billed_nano),
            *map(str, counts + differing),
        )
    return table


def _ledger_table(report: Report) -> Table:
    table = Table(title="Usage records and ledger")
    for name in ("whose", "by the records", "by the ledger", "difference in nano-dollars"):
        table.add_column(name, justify="left" if name == "whose" else "right")
    for line in report.ledger.sums:
        difference = line.posted_nano - line.recorded_nano
        recorded, posted = format_dollars(line.recorded_nano), format_dollars(line.posted_nano)
        table.add_row(line.whose, recorded, posted, str(difference))
    table.add_row("all accounts together", "$0.00", format_dollars(report.ledger.total_nano),
                  str(report.ledger.total_nano))  # fmt: skip
    return table


def _differences(tally: WorkerTally) -> list[str]:
    kinds = {"missing": tally.missing, "extra": tally.extra, "mismatched": tally.mismatched}
    return [
        f"{tally.name}: {kind}: {', '.join(ids[:SHOWN])}{' …' if len(ids) > SHOWN else ''}"
        for kind, ids in kinds.items()
        if ids
    ]
