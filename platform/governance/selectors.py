"""Which rules are in force."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from core.clock import clock
from governance.charter import CharterDocument, charter_convert
from governance.models import Charter


@dataclass(frozen=True)
class CharterInForce:
    """The charter that rules now, with its digest."""

    id: str
    digest: str
    document: CharterDocument
    effective_at: datetime


def charter_row_in_force() -> Charter | None:
    """The newest charter whose time has come."""
    return Charter.objects.filter(effective_at__lte=clock.now()).order_by("-effective_at", "-id").first()


def charter_in_force() -> CharterInForce | None:
    """The charter that rules now; None before the first was adopted."""
    row = charter_row_in_force()
    if row is None:
        return None
    return CharterInForce(
        id=row.id,
        digest=row.digest,
        document=charter_convert(row.document),
        effective_at=row.effective_at,
    )
