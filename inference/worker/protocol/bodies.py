"""The typed form of request bodies, after ``fields`` has taken out what is not served."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

MAX_MESSAGES = 2048
MAX_STOPS = 4

Temperature = Annotated[float, Meta(ge=0, le=2)]
TopP = Annotated[float, Meta(ge=0, le=1)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
MaxTokens = Annotated[int, Meta(ge=1, le=2**31 - 1)]
StopText = Annotated[str, Meta(min_length=1, max_length=1024)]
Stops = Annotated[list[StopText], Meta(max_length=MAX_STOPS)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class StreamOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``include_obfuscation`` pads chunks against traffic analysis; only its absence is served."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class CommonBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields that chat and completions share."""

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: MaxTokens | None = None
    temperature: Temperature = 1.0
    top_p: TopP = 1.0
    seed: Seed | None = None
    stop: StopText | Stops | None = None


class ChatBody(CommonBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/chat/completions``; messages are checked one by one afterwards, for clear errors."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_completion_tokens: MaxTokens | None = None


class CompletionBody(CommonBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/completions``; ``prompt`` has four spellings, told apart afterwards."""

    prompt: str | list[Any]
    suffix: str | None = None


class MessageBody(Struct, frozen=True, forbid_unknown_fields=True):
    """One chat message; ``content`` is text or a list of parts."""

    role: str
    content: str | list[dict[str, Any]]


TOKEN_IDS = msgspec.json.Decoder(list[TokenId])
