"""Repeatable randomness for data order and sampling: never for secrets."""

from __future__ import annotations

import random


def seeded(*parts: object) -> random.Random:
    """A generator that depends on `parts` alone, the same on every machine."""
    return random.Random("/".join(str(part) for part in parts))  # noqa: S311  # data order, not cryptography
