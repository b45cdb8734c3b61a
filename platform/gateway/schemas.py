"""The typed form of request bodies: what is served, and what is refused unless it asks for nothing.

A field whose type allows one neutral value (``store: false``) is known but not served beyond it. What only
the worker can judge (tools, response formats) passes as it is, and is refused there.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

MAX_MESSAGES = 2048
MAX_CHOICES = 128

Temperature = Annotated[float, Meta(ge=0, le=2)]
TopP = Annotated[float, Meta(gt=0, le=1)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
MaxTokens = Annotated[int, Meta(ge=1, le=2**31 - 1)]
MaxTokensOrNone = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Choices = Annotated[int, Meta(ge=1, le=MAX_CHOICES)]
Share = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
StopText = Annotated[str, Meta(min_length=1, max_length=1024)]
Stops = Annotated[list[StopText], Meta(max_length=16)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Slug = Annotated[str, Meta(min_length=1, max_length=64)]
Slugs = Annotated[tuple[Slug, ...], Meta(max_length=32)]
EmptyList = Annotated[list[Any], Meta(max_length=0)]
Dollars = Annotated[float, Meta(ge=0, le=1_000_000)] | Annotated[str, Meta(max_length=24)]


class MaxPrice(Struct, frozen=True, forbid_unknown_fields=True):
    """Dollars per million tokens that the tenant is ready to pay, levy included."""

    prompt: Dollars | None = None
    completion: Dollars | None = None


class Provider(Struct, frozen=True, forbid_unknown_fields=True):
    """Provider preferences; partners are named by slug."""

    order: Slugs | None = None
    only: Slugs | None = None
    ignore: Slugs | None = None
    max_price: MaxPrice | None = None
    allow_fallbacks: bool | None = None


class StreamOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``include_usage`` asks for the usage chunk before the end."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Disabled(Struct, frozen=True, tag_field="type", tag="disabled", forbid_unknown_fields=True):
    """``thinking: {"type": "disabled"}``."""


class CommonBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields that chat and completions share."""

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Choices | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Share | None = None
    seed: Seed | None = None
    stop: StopText | Stops | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(ge=0.01, le=10)] | None = None
    logit_bias: Annotated[dict[str, Bias], Meta(max_length=1024)] | None = None
    ignore_eos: bool | None = None
    response_format: Raw = Raw(b"null")
    provider: Provider | None = None
    # labels for the caller's own books: they do not change the answer
    user: str | None = None
    metadata: dict[str, Any] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    # known, and refused beyond their neutral value
    service_tier: Literal["auto", "default"] | None = None
    store: Literal[False] | None = None


class Part(Struct, frozen=True, tag_field="type", tag="text", forbid_unknown_fields=True):
    """A content part; only text is served."""

    text: str


class CalledFunction(Struct, frozen=True, forbid_unknown_fields=True):
    """What an earlier answer called."""

    name: Annotated[str, Meta(max_length=64)]
    arguments: str


class Call(Struct, frozen=True, forbid_unknown_fields=True):
    """A call of an earlier answer, repeated."""

    id: Annotated[str, Meta(max_length=128)]
    function: CalledFunction
    type: Literal["function"] = "function"
    index: int | None = None


class Message(Struct, frozen=True, forbid_unknown_fields=True):
    """One chat message."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: Annotated[str, Meta(max_length=128)] | None = None
    name: Annotated[str, Meta(max_length=128)] | None = None
    prefix: Literal[False] | None = None
    reasoning_content: Literal[""] | None = None
    refusal: Literal[""] | None = None
    annotations: EmptyList | None = None
    audio: None = None
    function_call: None = None


class ChatBody(CommonBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: MaxTokens | UnsetType | None = UNSET
    max_completion_tokens: MaxTokens | UnsetType | None = UNSET
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    parallel_tool_calls: bool | None = None
    tools: Raw = Raw(b"null")
    tool_choice: Raw = Raw(b"null")
    functions: EmptyList | None = None
    function_call: Literal["none", "auto"] | None = None
    modalities: Annotated[list[Literal["text"]], Meta(min_length=1, max_length=1)] | None = None
    thinking: Disabled | None = None
    reasoning_effort: Literal["none"] | None = None
    verbosity: Literal["medium"] | None = None
    audio: None = None
    prediction: None = None
    web_search_options: None = None


class CompletionBody(CommonBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/completions``. ``prompt``: text, token ids, or a list of either."""

    prompt: str | list[str | TokenId | list[TokenId]]
    suffix: str | None = None
    max_tokens: MaxTokensOrNone | UnsetType | None = UNSET
    best_of: Choices | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=5)] | Literal[False] | None = None


class EmbeddingBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/embeddings``. ``input`` is spelled as a completion's prompt."""

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    input: str | list[str | TokenId | list[TokenId]]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: None = None
    provider: Provider | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None


SERVED = frozenset(
    {
        "model", "messages", "prompt", "suffix", "stream", "stream_options", "max_tokens",
        "max_completion_tokens", "temperature", "top_p", "seed", "stop", "provider", "user", "metadata",
        "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "parallel_tool_calls", "n",
        "top_k", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias",
        "ignore_eos", "logprobs", "top_logprobs", "echo", "input", "encoding_format",
    }
)  # fmt: skip
CHAT_DECODER = msgspec.json.Decoder(ChatBody)
COMPLETION_DECODER = msgspec.json.Decoder(CompletionBody)
EMBEDDING_DECODER = msgspec.json.Decoder(EmbeddingBody)
