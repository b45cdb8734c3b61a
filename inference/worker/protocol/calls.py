"""A parsed request: what a client asked for, free of its spelling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from inference.engine.types import Grammar

Endpoint = Literal["chat", "completions", "embeddings"]
Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function; ``arguments`` is JSON text."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One turn; several text parts are already joined. ``tool_call_id`` says which call a tool answers."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call; ``parameters`` is a JSON schema, ``definition`` the whole as sent.

    Arguments of a ``strict`` one follow the schema whenever it is called, forced or not.
    """

    name: str
    parameters: dict[str, Any]
    definition: dict[str, Any]
    strict: bool = False


@dataclass(frozen=True, slots=True)
class ToolUse:
    """Which tools are offered, and which must be called: ``forced`` is empty where the model may choose.

    ``several`` allows more than one call in an answer.
    """

    tools: tuple[Tool, ...]
    forced: tuple[Tool, ...] = ()
    several: bool = True

    @property
    def strict(self) -> bool:
        """Whether a tool is offered whose calls must follow its schema."""
        return any(tool.strict for tool in self.tools)


@dataclass(frozen=True, slots=True)
class ChatPrompt:
    """Turns to put through the chat template."""

    messages: tuple[ChatMessage, ...]
    tool_use: ToolUse | None = None


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """Plain text to continue; with ``suffix`` the text between the two is wanted (fill in the middle)."""

    text: str
    suffix: str | None = None


@dataclass(frozen=True, slots=True)
class TokenPrompt:
    """Token ids to continue, exactly as given."""

    token_ids: tuple[int, ...]


Prompt = ChatPrompt | TextPrompt | TokenPrompt


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen; see the engine's ``SamplingParams``."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    ignore_eos: bool = False
    grammar: Grammar | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """Generations for one or more prompts, ``n`` choices each: choice ``prompt * n + i``.

    ``max_tokens`` None means as long as the model's context allows; 0 asks for the prompt's log
    probabilities alone. ``logprobs`` is how many of the best tokens are named beside each token; None: no
    log probabilities. ``echo`` repeats the prompt before the completion. ``base64`` is how embeddings are
    spelled.
    """

    endpoint: Endpoint
    model: str
    prompts: tuple[Prompt, ...]
    sampling: Sampling = Sampling()
    n: int = 1
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    logprobs: int | None = None
    echo: bool = False
    base64: bool = False

    @property
    def choices(self) -> int:
        """How many generations this is."""
        return len(self.prompts) * self.n
