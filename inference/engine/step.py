"""What the scheduler asks of the runner for one step, and what it gets back."""

from __future__ import annotations

from dataclasses import dataclass

from inference.engine.sequence import Sequence
from inference.engine.types import FinishReason


@dataclass(frozen=True, slots=True)
class Draw:
    """How to choose the next token of one row. `index` numbers the request's tokens and selects its random
    number.
    """

    temperature: float
    top_p: float
    seed: int
    index: int


@dataclass(frozen=True, slots=True)
class Row:
    """Some consecutive tokens of one request: they start at position `start` of its context.

    `pages` cover positions 0 to the last new one. Without `draw` the prompt goes on and no token is chosen.
    """

    sequence: Sequence
    tokens: tuple[int, ...]
    start: int
    pages: tuple[int, ...]
    draw: Draw | None

    @property
    def end(self) -> int:
        """Context length after this step."""
        return self.start + len(self.tokens)


@dataclass(frozen=True, slots=True)
class Step:
    """The rows of one forward pass."""

    rows: tuple[Row, ...]

    def __bool__(self) -> bool:
        return bool(self.rows)


@dataclass(frozen=True, slots=True)
class RowResult:
    """The chosen token (None: none was asked for), or why there is none."""

    token: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """What a step did to one request, for the front of the engine."""

    sequence: Sequence
    token: int | None
    finish_reason: FinishReason | None
