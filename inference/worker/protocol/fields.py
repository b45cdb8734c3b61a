"""Which request fields are served, which are harmless, and which are refused unless they ask for nothing.

A null value means "not given" everywhere. A field that would change the answer and is not implemented is
refused with its name, except at the value that asks for what happens anyway (``store: false``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inference.worker.protocol.bodies import ChatBody, CompletionBody, EmbeddingBody, MessageBody
from inference.worker.refusal import invalid, unsupported

CHAT_FIELDS = frozenset(ChatBody.__struct_fields__)
COMPLETION_FIELDS = frozenset(CompletionBody.__struct_fields__)
EMBEDDING_FIELDS = frozenset(EmbeddingBody.__struct_fields__)
MESSAGE_FIELDS = frozenset(MessageBody.__struct_fields__)

# Labels for the caller's own books or for the gateway's routing; they do not change the text.
_HARMLESS = frozenset(
    {"user", "metadata", "provider", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
)

_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "top_logprobs": (0,),
    "logprobs": (False,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "dimensions": (),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "thinking": ({"type": "disabled"},),
    "reasoning_effort": ("none",),
    "audio": (),
    "prediction": (),
    "verbosity": ("medium",),
    "web_search_options": (),
}

_NEUTRAL_IN_MESSAGE: dict[str, tuple[Any, ...]] = {
    "prefix": (False,),
    "reasoning_content": ("",),
    "refusal": ("",),
    "annotations": ([],),
    "audio": (),
    "function_call": (),
}


def body_fields(raw: Mapping[str, Any], served: frozenset[str]) -> dict[str, Any]:
    """The served fields of a request body that carry a value. Refuses every other that asks for something."""
    return _select(raw, served, _NEUTRAL, where="")


def message_fields(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The same for one chat message; ``where`` names it in errors, such as ``messages[0]``."""
    return _select(raw, MESSAGE_FIELDS, _NEUTRAL_IN_MESSAGE, where=f"{where}.")


def _select(
    raw: Mapping[str, Any], served: frozenset[str], neutral: Mapping[str, tuple[Any, ...]], *, where: str
) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for name, value in raw.items():
        if value is None or (name in _HARMLESS and not where):
            continue
        if name in served:
            chosen[name] = value
        elif name in neutral:
            if not any(_same(value, allowed) for allowed in neutral[name]):
                raise unsupported(f"{where}{name}", _advice(f"{where}{name}", neutral[name]))
        else:
            message = f"Unrecognized request argument: {where}{name[:64]}. Remove it."
            raise invalid(message, param=f"{where}{name[:64]}", code="unknown_parameter")
    return chosen


def _same(value: Any, allowed: Any) -> bool:
    """Equality that tells ``false`` from 0 and ``true`` from 1."""
    return isinstance(value, bool) == isinstance(allowed, bool) and bool(value == allowed)


def _advice(name: str, allowed: tuple[Any, ...]) -> str:
    if not allowed:
        return f"{name} is not supported by this model's workers. Remove it."
    values = " or ".join(repr(value) for value in allowed)
    return f"{name} is not supported by this model's workers beyond {values}. Remove it."
