"""Adopting a charter."""

from __future__ import annotations

from governance.charter import CharterDocument, charter_digest, charter_to_dict
from governance.models import Charter
from governance.selectors import charter_row_in_force


def charter_adopt(*, document: CharterDocument) -> Charter:
    """Put the charter in force from now on; adopting the one in force again changes nothing. System scope."""
    digest = charter_digest(document)
    current = charter_row_in_force()
    if current is not None and current.digest == digest:
        return current
    return Charter.objects.create(digest=digest, document=charter_to_dict(document))
