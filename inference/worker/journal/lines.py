"""One entry as a line of JSON, and back."""

from __future__ import annotations

import orjson

from inference.messages import SignedEntry


def line_encode(signed: SignedEntry) -> bytes:
    """The line, with its newline: the last byte written, so that a torn line is one without it."""
    return orjson.dumps(signed.to_dict()) + b"\n"


def line_decode(line: bytes) -> SignedEntry:
    """The entry in a line. Raises ValueError when it is not one."""
    try:
        return SignedEntry.from_dict(orjson.loads(line))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no journal entry: {error}") from None
