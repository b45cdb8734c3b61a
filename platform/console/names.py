"""Names for ids, in the caller's scope."""

from __future__ import annotations

from partners.selectors import partner_list


def partner_names() -> dict[str, str]:
    """Partner id to the name people know."""
    return {partner.id: partner.name for partner in partner_list()}
