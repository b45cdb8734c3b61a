"""Chat messages of a request body, one by one."""

from __future__ import annotations

from typing import Any

from inference.worker.protocol.bodies import MessageBody, ToolCallBody
from inference.worker.protocol.calls import ChatMessage, Role, ToolCall
from inference.worker.protocol.fields import message_fields
from inference.worker.protocol.values import convert
from inference.worker.refusal import RefusalError, invalid, unsupported

_ROLES: dict[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool",
}  # fmt: skip


def message_parse(raw: dict[str, Any], where: str) -> ChatMessage:
    """The message at ``where`` in the body. Raises RefusalError (400)."""
    body = convert(message_fields(raw, where), MessageBody, where)
    role = _ROLES.get(body.role)
    if body.role == "function":
        raise unsupported(f"{where}.role", f"{where}.role: use tools and role 'tool' instead of 'function'.")
    if role is None:
        message = f"{where}.role: expected system, user, assistant or tool."
        raise invalid(message, param=f"{where}.role", code="invalid_value")
    if (role == "tool") != (body.tool_call_id is not None):
        raise _misplaced(f"{where}.tool_call_id", "belongs to messages of role 'tool', and to all of them")
    if body.tool_calls and role != "assistant":
        raise _misplaced(f"{where}.tool_calls", "belongs to messages of role 'assistant'")
    if body.name is not None and role != "tool":
        raise unsupported(f"{where}.name", f"{where}.name is not supported. Remove it.")
    if body.content is None and not body.tool_calls:
        name = f"{where}.content"
        raise invalid(f"{name}: is required.", param=name, code="missing_required_parameter")
    calls = tuple(
        _tool_call(call, f"{where}.tool_calls[{index}]") for index, call in enumerate(body.tool_calls or ())
    )
    return ChatMessage(role, _text(body.content or "", where), calls, body.tool_call_id)


def _text(content: str | list[dict[str, Any]], where: str) -> str:
    if isinstance(content, str):
        return content
    return "".join(_part_text(part, f"{where}.content[{i}]") for i, part in enumerate(content))


def _part_text(part: dict[str, Any], where: str) -> str:
    if part.get("type") != "text":
        raise unsupported(f"{where}.type", f"{where}.type: only parts of type 'text' are supported.")
    text = part.get("text")
    if not isinstance(text, str):
        raise invalid(f"{where}.text: a string is required.", param=f"{where}.text", code="invalid_type")
    return text


def _tool_call(raw: dict[str, Any], where: str) -> ToolCall:
    body = convert(raw, ToolCallBody, where)
    return ToolCall(body.id, body.function.name, body.function.arguments)


def _misplaced(param: str, problem: str) -> RefusalError:
    return invalid(f"{param} {problem}.", param=param, code="invalid_value")
