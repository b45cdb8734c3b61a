"""The usage object, in OpenAI's and DeepSeek's spelling at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request; cached tokens are a part of the prompt's.

    ``routing`` is the fixed-routing profile of the answer, or ``dynamic`` and why; None: none was asked for.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    routing: str | None = None

    def to_wire(self) -> dict[str, Any]:
        """The ``usage`` object of a response."""
        routing = {} if self.routing is None else {"routing": self.routing}
        return routing | {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": 0},
            "prompt_cache_hit_tokens": self.cached_tokens,
            "prompt_cache_miss_tokens": self.prompt_tokens - self.cached_tokens,
        }
