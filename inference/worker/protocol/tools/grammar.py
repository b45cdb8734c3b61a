"""Calls that must be made, or made well: a model's own way to write them as grammars in llguidance's Lark."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from inference.engine.types import Grammar
from inference.worker.protocol.calls import Tool, ToolUse
from inference.worker.protocol.tools.styles import ToolStyle

MAX_CALLS = 16
_OPTIONS = {"whitespace_pattern": r"[\x20\x0A\x0D\x09]{1,32}", "lenient": False}
_ANY_ARGUMENTS: dict[str, Any] = {"type": "object"}


def tools_grammar(use: ToolUse, style: ToolStyle, marks: Mapping[str, int]) -> Grammar | None:
    """What an answer that may or must call tools has to look like; None where any text will do.

    ``marks`` are those of the style that are tokens of the model, with their ids: they must be written as
    such, not spelled out.
    """
    if use.forced:
        return forced_grammar(use, style, marks)
    return strict_grammar(use, style, marks) if use.strict else None


def forced_grammar(use: ToolUse, style: ToolStyle, marks: Mapping[str, int]) -> Grammar:
    """One call of the forced tools, or several where the request allows it."""
    start = f"start: {_text(style.opening, marks)} {_calls(use, style, marks)} {_text(style.closing, marks)}"
    schemas = [(tool, tool.parameters) for tool in use.forced]
    return _grammar([start, *_rules(schemas, style, marks, style.begin)])


def strict_grammar(use: ToolUse, style: ToolStyle, marks: Mapping[str, int]) -> Grammar:
    """Any text; once it writes the mark that begins a call, a call of an offered tool in the style's exact
    spelling. Arguments of strict tools follow their schema, those of others are some JSON object.
    """
    schemas = [(tool, tool.parameters if tool.strict else _ANY_ARGUMENTS) for tool in use.tools]
    if style.opening:
        first, begin, most = style.opening, style.begin, 1
        block = f"{_calls(use, style, marks)} {_text(style.closing, marks)}"
    else:
        first, begin, most = style.begin, "", MAX_CALLS if use.several else 1
        block = "call"
    spelled = " | ".join(_literal(mark) for mark in (style.opening, style.begin) if mark)
    # A mark that is no token is found where the text spells it, so the text before it ends there at once.
    lead = f"lead: TEXT {_text(first, marks)}" if first in marks else f"lead[lazy]: ANY {_literal(first)}"
    start = [
        f"start: (lead {block}){{0,{most}}} text",
        lead,
        "text: TEXT",
        f"TEXT: ANY & ~(ANY ({spelled}) ANY)",
        r"ANY: /(.|\n)*/",
    ]
    return _grammar([*start, *_rules(schemas, style, marks, begin)])


def _grammar(rules: Iterable[str]) -> Grammar:
    return Grammar("lark", "\n".join(rules))


def _calls(use: ToolUse, style: ToolStyle, marks: Mapping[str, int]) -> str:
    """One call, or up to MAX_CALLS."""
    more = f" ({_text(style.separator, marks)} call){{0,{MAX_CALLS - 1}}}" if use.several else ""
    return f"call{more}"


def _rules(
    schemas: list[tuple[Tool, dict[str, Any]]], style: ToolStyle, marks: Mapping[str, int], begin: str
) -> list[str]:
    """``call``: ``begin`` and the rest of a call of one of the tools, its arguments as its schema says."""
    names = " | ".join(f"tool{index}" for index in range(len(schemas)))
    rules = [f"call: {names}"]
    if style.before_number:
        rules.append("NUMBER: /0|[1-9][0-9]{0,3}/")
    for index, (tool, schema) in enumerate(schemas):
        head = _head(begin + style.before_name + tool.name, style, marks)
        held = json.dumps(schema | {"x-guidance": _OPTIONS}, ensure_ascii=False)
        rules.append(f"tool{index}: {head} arguments{index} {_text(style.after_arguments, marks)}")
        rules.append(f"arguments{index}: %json {held}")
    return rules


def _head(named: str, style: ToolStyle, marks: Mapping[str, int]) -> str:
    """A call up to its arguments; ``named`` is the part up to the name."""
    if not style.before_number:
        return _text(named + style.after_name, marks)
    return f"{_text(named + style.before_number, marks)} NUMBER {_text(style.after_name, marks)}"


def _text(text: str, marks: Mapping[str, int]) -> str:
    """Literals and token ids that make ``text``."""
    parts = re.split(f"({'|'.join(map(re.escape, marks))})", text) if marks else [text]
    return " ".join(f"<[{marks[part]}]>" if part in marks else _literal(part) for part in parts if part)


def _literal(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
