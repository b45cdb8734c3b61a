"""Calls that must be made: a grammar of the model's own way to write them, in llguidance's Lark."""

from __future__ import annotations

import json

from inference.engine.types import Grammar
from inference.worker.protocol.calls import Tool, ToolUse
from inference.worker.protocol.tools.styles import ToolStyle

MAX_CALLS = 16
_OPTIONS = {"whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,32}", "lenient": False}


def forced_grammar(use: ToolUse, style: ToolStyle) -> Grammar:
    """One call of the forced tools, or several where the request allows it."""
    more = f"({_text(style.separator)} call){{0,{MAX_CALLS - 1}}}" if use.several else ""
    names = " | ".join(f"tool{index}" for index in range(len(use.forced)))
    rules = [
        f"start: {_text(style.opening)} call {more} {_text(style.closing)}",
        f"call: {names}",
        *(_rule(index, tool, style) for index, tool in enumerate(use.forced)),
    ]
    return Grammar("lark", "\n".join(rules))


def _rule(index: int, tool: Tool, style: ToolStyle) -> str:
    head = style.begin + style.before_name + tool.name + style.after_name
    schema = tool.parameters | {"x-guidance": _OPTIONS}
    arguments = f"arguments{index}: %json {json.dumps(schema, ensure_ascii=False)}"
    return f"tool{index}: {_text(head)} arguments{index} {_text(style.after_arguments)}\n{arguments}"


def _text(text: str) -> str:
    """A literal; nothing for no text."""
    return json.dumps(text, ensure_ascii=False) if text else ""
