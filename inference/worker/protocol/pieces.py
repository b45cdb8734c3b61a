"""What one engine step adds to one choice, ready to be written in either shape."""

from __future__ import annotations

from typing import Any, NamedTuple

from inference.worker.protocol.tools.reader import Delta


class Piece(NamedTuple):
    """``deltas`` in their order; ``reason`` (OpenAI's word for it) only with a choice's last piece. A tuple,
    because one is made for every token.
    """

    choice: int
    deltas: tuple[Delta, ...] = ()
    logprobs: dict[str, Any] | None = None
    reason: str | None = None
