"""Conversations through a model's chat template, tools and their results included."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from inference.worker.ports import TokenizerPort
from inference.worker.protocol.calls import Call, ChatMessage, ChatPrompt, ToolCall
from inference.worker.protocol.tools.styles import ToolStyle, tool_style
from inference.worker.refusal import invalid, unsupported


def chat_tool_style(call: Call, tokenizer: TokenizerPort) -> ToolStyle | None:
    """How the model writes calls, where the request has to do with tools; None where it has not.

    Raises RefusalError (400) when the model's template has no place for what is asked.
    """
    prompt = call.prompts[0]
    if not isinstance(prompt, ChatPrompt):
        return None
    results = any(message.tool_calls or message.role == "tool" for message in prompt.messages)
    if prompt.tool_use is None and not results:
        return None
    style = tool_style(tokenizer.chat_template)
    if style is None or (prompt.tool_use is not None and not tokenizer.accepts_tools):
        name = "messages" if prompt.tool_use is None else "tools"
        raise unsupported(name, f"{name}: the chat template of this model has no place for tools.")
    return style


def chat_tokens(prompt: ChatPrompt, tokenizer: TokenizerPort, style: ToolStyle | None) -> list[int]:
    """Token ids of a conversation up to where the answer begins. Raises RefusalError (400)."""
    messages = [_message(one, style) for one in _renamed(prompt.messages, style)]
    try:
        if prompt.tool_use is None:
            return tokenizer.encode_chat(messages)
        return tokenizer.encode_chat(messages, tools=[tool.definition for tool in prompt.tool_use.tools])
    except ValueError as error:
        raise invalid(f"{sentence(str(error))}.", param="messages", code="invalid_value") from None


def mark_ids(style: ToolStyle, tokenizer: TokenizerPort) -> dict[str, int]:
    """The marks of a style that are tokens of the model, with their ids."""
    found = {mark: tokenizer.encode(mark, allow_special=True) for mark in style.marks}
    return {mark: ids[0] for mark, ids in found.items() if len(ids) == 1}


def sentence(text: str) -> str:
    """``text`` with a capital and without its full stop."""
    return text[:1].upper() + text[1:].rstrip(".")


def _renamed(messages: Sequence[ChatMessage], style: ToolStyle | None) -> Iterator[ChatMessage]:
    """Calls and their results under the ids that a style with numbers wants, whatever they were called: a
    model that meets others in its history writes others, from which no name can be read.
    """
    if style is None or not style.before_number:
        yield from messages
        return
    id_of: dict[str, str] = {}
    number = 0
    for message in messages:
        calls = []
        for call in message.tool_calls:
            id_of[call.call_id] = f"{style.before_name}{call.name}{style.before_number}{number}"
            calls.append(replace(call, call_id=id_of[call.call_id]))
            number += 1
        answered = message.tool_call_id
        result = None if answered is None else id_of.get(answered, answered)
        yield replace(message, tool_calls=tuple(calls), tool_call_id=result)


def _message(message: ChatMessage, style: ToolStyle | None) -> dict[str, object]:
    shown: dict[str, object] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        shown["tool_calls"] = [_call(call, style) for call in message.tool_calls]
    if message.tool_call_id is not None:
        shown["tool_call_id"] = message.tool_call_id
    return shown


def _call(call: ToolCall, style: ToolStyle | None) -> dict[str, object]:
    arguments: Any = call.arguments
    if style is not None and style.parsed_arguments:
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            message = f"The arguments of call {call.call_id!r} are not valid JSON."
            raise invalid(message, param="messages", code="invalid_value") from None
    return {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
