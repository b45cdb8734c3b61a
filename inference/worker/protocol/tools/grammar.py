"""Calls that must be made: a grammar of the model's own way to write them, in llguidance's Lark."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from inference.engine.types import Grammar
from inference.worker.protocol.calls import Tool, ToolUse
from inference.worker.protocol.tools.styles import ToolStyle

MAX_CALLS = 16
_OPTIONS = {"whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,32}", "lenient": False}


def forced_grammar(use: ToolUse, style: ToolStyle, marks: Mapping[str, int]) -> Grammar:
    """One call of the forced tools, or several where the request allows it.

    ``marks`` are those of the style that are tokens of the model, with their ids: they must be written as
    such, not spelled out.
    """
    more = f"({_text(style.separator, marks)} call){{0,{MAX_CALLS - 1}}}" if use.several else ""
    names = " | ".join(f"tool{index}" for index in range(len(use.forced)))
    rules = [
        f"start: {_text(style.opening, marks)} call {more} {_text(style.closing, marks)}",
        f"call: {names}",
        *(_rule(index, tool, style, marks) for index, tool in enumerate(use.forced)),
    ]
    return Grammar("lark", "\n".join(rules))


def _rule(index: int, tool: Tool, style: ToolStyle, marks: Mapping[str, int]) -> str:
    head = style.begin + style.before_name + tool.name + style.after_name
    schema = tool.parameters | {"x-guidance": _OPTIONS}
    arguments = f"arguments{index}: %json {json.dumps(schema, ensure_ascii=False)}"
    end = _text(style.after_arguments, marks)
    return f"tool{index}: {_text(head, marks)} arguments{index} {end}\n{arguments}"


def _text(text: str, marks: Mapping[str, int]) -> str:
    """Literals and token ids that make ``text``."""
    parts = re.split(f"({'|'.join(map(re.escape, marks))})", text) if marks else [text]
    return " ".join(
        f"<[{marks[part]}]>" if part in marks else json.dumps(part, ensure_ascii=False)
        for part in parts
        if part
    )
