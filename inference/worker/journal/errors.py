"""What can be wrong with a journal::

JournalError
├── JournalCorruptError   an entry was changed, lost or put in: refuse to serve, ask an operator
├── JournalLockedError    another process writes to it
└── DuplicateEntryError   the request has an entry already
"""

from __future__ import annotations


class JournalError(Exception):
    """The journal cannot take or give an entry."""


class JournalCorruptError(JournalError):
    """The chain does not hold."""


class JournalLockedError(JournalError):
    """Another worker uses the same state directory."""


class DuplicateEntryError(JournalError):
    """One request has one entry."""
