"""From what a request asks for to llguidance's grammar text, within explicit limits."""

from __future__ import annotations

import json

from llguidance import LLMatcher

from inference.engine.types import Grammar

MAX_SOURCE_BYTES = 65_536
MAX_DEPTH = 64  # of nested objects and arrays in a schema

# White space a model may put between the parts of a JSON text: enough to indent, not to go on for ever.
_WHITE_SPACE = r"[\x20\x0A\x0D\x09]{1,32}"


class GrammarError(ValueError):
    """The grammar cannot be used, or the text cannot go on in it; the message says why."""


def grammar_source(grammar: Grammar) -> str:
    """llguidance's form of a grammar. Raises GrammarError for one beyond the limits."""
    size = len(grammar.source.encode())
    if size > MAX_SOURCE_BYTES:
        raise GrammarError(f"it has {size} bytes; at most {MAX_SOURCE_BYTES} are allowed")
    if grammar.kind == "regex":
        return LLMatcher.grammar_from_regex(grammar.source)
    if grammar.kind == "lark":
        return LLMatcher.grammar_from_lark(grammar.source)
    return LLMatcher.grammar_from_json_schema(
        _checked_schema(grammar.source), overrides={"whitespace_pattern": _WHITE_SPACE, "lenient": False}
    )


def _checked_schema(source: str) -> str:
    try:
        schema = json.loads(source)
    except (ValueError, RecursionError):
        raise GrammarError("the schema is not valid JSON") from None
    if not isinstance(schema, dict):
        raise GrammarError("the schema must be a JSON object")
    depth = 0
    level: list[dict[str, object] | list[object]] = [schema]
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise GrammarError(f"the schema is nested deeper than {MAX_DEPTH} levels")
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
    if "x-guidance" in schema:
        raise GrammarError("the schema must not carry x-guidance options")
    return source
