"""``response_format`` to the grammar that the text must follow."""

from __future__ import annotations

from typing import Any

import msgspec

from inference.engine.types import Grammar
from inference.worker.protocol.bodies import FormatBody
from inference.worker.protocol.values import convert
from inference.worker.refusal import invalid

_ANY_OBJECT = '{"type":"object"}'
_CARRIED = {"json_schema": "json_schema", "regex": "pattern", "lark": "grammar"}  # type -> its own field


def format_grammar(raw: dict[str, Any] | None) -> Grammar | None:
    """The grammar that a response format asks for; None for free text. Raises RefusalError (400)."""
    if raw is None:
        return None
    body = convert(raw, FormatBody, "response_format")
    needed = _CARRIED.get(body.type)
    for name in _CARRIED.values():
        _check_presence(name, body, needed=name == needed)
    if body.json_schema is not None:
        return Grammar("json_schema", msgspec.json.encode(body.json_schema.schema).decode())
    if body.pattern is not None:
        return Grammar("regex", body.pattern)
    if body.grammar is not None:
        return Grammar("lark", body.grammar)
    return Grammar("json_schema", _ANY_OBJECT) if body.type == "json_object" else None


def _check_presence(name: str, body: FormatBody, *, needed: bool) -> None:
    if needed == (getattr(body, name) is not None):
        return
    param = f"response_format.{name}"
    if needed:
        raise invalid(f"{param}: is required.", param=param, code="missing_required_parameter")
    raise invalid(f"{param} does not belong to type {body.type!r}.", param=param, code="invalid_value")
