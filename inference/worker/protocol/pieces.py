"""What one engine step adds to one choice, ready to be written in either shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inference.worker.protocol.tools.reader import Delta


@dataclass(frozen=True, slots=True)
class Piece:
    """``deltas`` in their order; ``reason`` (OpenAI's word for it) only with a choice's last piece."""

    index: int
    deltas: tuple[Delta, ...] = ()
    logprobs: dict[str, Any] | None = None
    reason: str | None = None
