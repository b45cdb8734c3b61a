"""The scheduler's record of one request."""

from __future__ import annotations

from dataclasses import dataclass, field

from inference.engine.types import FinishReason, GenerationRequest


@dataclass(slots=True, eq=False)
class Sequence:
    """A prompt and its continuation so far.

    `computed` counts the leading `tokens` whose latents are in `pages`. `arrival` orders requests: earlier
    ones are never made to wait for later ones' pages.
    """

    request: GenerationRequest
    arrival: int
    seed: int
    tokens: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    computed: int = 0
    finish_reason: FinishReason | None = None

    def __post_init__(self) -> None:
        self.tokens = list(self.request.prompt_token_ids)

    @property
    def prompt_tokens(self) -> int:
        return len(self.request.prompt_token_ids)

    @property
    def completion_tokens(self) -> int:
        return len(self.tokens) - len(self.request.prompt_token_ids)

    @property
    def pending(self) -> int:
        """Tokens still to be computed: 1 while decoding, more while (re)reading the prompt."""
        return len(self.tokens) - self.computed
