"""The typed form of request bodies, after ``fields`` has taken out what is not served."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

MAX_MESSAGES = 2048
MAX_STOPS = 16
MAX_CHOICES = 128
MAX_TOOLS = 128

Temperature = Annotated[float, Meta(ge=0, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
TopK = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Repetition = Annotated[float, Meta(ge=0.01, le=10)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
MaxTokens = Annotated[int, Meta(ge=1, le=2**31 - 1)]
MaxTokensOrNone = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Choices = Annotated[int, Meta(ge=1, le=MAX_CHOICES)]
StopText = Annotated[str, Meta(min_length=1, max_length=1024)]
Stops = Annotated[list[StopText], Meta(max_length=MAX_STOPS)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
ModelName = Annotated[str, Meta(min_length=1, max_length=128)]
ToolName = Annotated[str, Meta(min_length=1, max_length=64, pattern="^[A-Za-z0-9_.-]+$")]


class StreamOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``include_obfuscation`` pads chunks against traffic analysis; only its absence is served."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class CommonBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fields that chat and completions share."""

    model: ModelName
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: Choices = 1
    temperature: Temperature = 1.0
    top_p: Share = 1.0
    top_k: TopK = 0
    min_p: Share = 0.0
    seed: Seed | None = None
    stop: StopText | Stops | None = None
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repetition_penalty: Repetition = 1.0
    logit_bias: Annotated[dict[str, Bias], Meta(max_length=1024)] | None = None
    ignore_eos: bool = False
    response_format: dict[str, Any] | None = None


class ChatBody(CommonBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/chat/completions``; messages are checked one by one afterwards, for clear errors."""

    messages: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MAX_MESSAGES)]
    max_tokens: MaxTokens | None = None
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool = True


class CompletionBody(CommonBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/completions``; ``prompt`` has four spellings, told apart afterwards."""

    prompt: str | list[Any]
    suffix: str | None = None
    max_tokens: MaxTokensOrNone | None = None
    best_of: Choices | None = None
    echo: bool = False
    logprobs: Annotated[int, Meta(ge=0, le=5)] | Literal[False] | None = None


class EmbeddingBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``POST /v1/embeddings``; ``input`` is spelled as a completion's prompt."""

    model: ModelName
    input: str | list[Any]
    encoding_format: Literal["float", "base64"] = "float"


class MessageBody(Struct, frozen=True, forbid_unknown_fields=True):
    """One chat message; ``content`` is text or a list of parts, and may be absent beside tool calls."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    name: str | None = None


class FunctionCallBody(Struct, frozen=True, forbid_unknown_fields=True):
    """The function of a call that an assistant's message repeats."""

    name: ToolName
    arguments: str


class ToolCallBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A call that an assistant's message repeats; ``index`` is a left-over of streaming."""

    id: Annotated[str, Meta(min_length=1, max_length=128)]
    function: FunctionCallBody
    type: Literal["function"] = "function"
    index: int | None = None


class FunctionBody(Struct, frozen=True, forbid_unknown_fields=True):
    """A function's name, purpose and parameters (a JSON schema); ``strict`` holds every call to these."""

    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolBody(Struct, frozen=True, forbid_unknown_fields=True):
    """An offered tool; only functions are served."""

    type: Literal["function"]
    function: FunctionBody


class SchemaBody(Struct, frozen=True, forbid_unknown_fields=True):
    """``response_format.json_schema``; the schema is enforced, ``strict`` or not."""

    schema: dict[str, Any]
    name: Annotated[str, Meta(max_length=64)] | None = None
    description: str | None = None
    strict: bool | None = None


class FormatBody(Struct, frozen=True, forbid_unknown_fields=True):
    """``response_format``; ``regex`` and ``lark`` extend OpenAI's types."""

    type: Literal["text", "json_object", "json_schema", "regex", "lark"]
    json_schema: SchemaBody | None = None
    pattern: str | None = None
    grammar: str | None = None
