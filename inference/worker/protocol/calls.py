"""A parsed request: what a client asked for, free of its spelling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Endpoint = Literal["chat", "completions"]
Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn; several text parts are already joined."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """Turns to put through the chat template."""

    messages: tuple[ChatMessage, ...]


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """Plain text to continue; with ``suffix`` the text between the two is wanted (fill in the middle)."""

    text: str
    suffix: str | None = None


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """Token ids to continue, exactly as given."""

    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One generation. ``max_tokens`` None means as long as the model's context allows."""

    endpoint: Endpoint
    model: str
    prompt: ChatPrompt | TextPrompt | TokenPrompt
    stream: bool
    include_usage: bool
    max_tokens: int | None
    temperature: float
    top_p: float
    seed: int | None
    stop: tuple[str, ...]
