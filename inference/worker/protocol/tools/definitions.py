"""``tools`` and ``tool_choice`` of a request body."""

from __future__ import annotations

from typing import Any

from inference.worker.protocol.bodies import ChatBody, ToolBody
from inference.worker.protocol.calls import Tool, ToolUse
from inference.worker.protocol.values import convert
from inference.worker.refusal import RefusalError, invalid

_NO_PARAMETERS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}


def tool_use_parse(body: ChatBody) -> ToolUse | None:
    """What may and must be called; None where no call is possible. Raises RefusalError (400)."""
    tools = tuple(_tool(raw, f"tools[{index}]") for index, raw in enumerate(body.tools or ()))
    if len({tool.name for tool in tools}) < len(tools):
        raise invalid("tools: two tools have the same name.", param="tools", code="invalid_value")
    choice = body.tool_choice
    if not tools:
        if choice not in (None, "none", "auto"):
            raise _refused("tool_choice needs tools.")
        return None
    if choice == "none":
        return None
    if choice is None or choice == "auto":
        return ToolUse(tools, several=body.parallel_tool_calls)
    forced = tools if choice == "required" else (_named(choice, tools),)
    several = body.parallel_tool_calls and choice == "required"
    return ToolUse(tools, forced, several)


def _tool(raw: dict[str, Any], where: str) -> Tool:
    function = convert(raw, ToolBody, where).function
    parameters = _NO_PARAMETERS if function.parameters is None else function.parameters
    return Tool(function.name, parameters, raw, bool(function.strict))


def _named(choice: str | dict[str, Any], tools: tuple[Tool, ...]) -> Tool:
    match choice:
        case {"type": "function", "function": {"name": str(name)}}:
            found = next((tool for tool in tools if tool.name == name), None)
            if found is None:
                raise _refused(f"tool_choice: there is no tool {name[:64]!r} among tools.")
            return found
    raise _refused('tool_choice: expected "none", "auto", "required" or a named function.')


def _refused(message: str) -> RefusalError:
    return invalid(message, param="tool_choice", code="invalid_value")
