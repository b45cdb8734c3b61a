"""Rendering a checkpoint's chat template, with the callers' text kept apart from the template's control
tokens.

Jinja templates of published checkpoints are programs of a third party: they run in Jinja's immutable sandbox.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, NoReturn

from jinja2 import TemplateError, meta
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

# A code point that Unicode reserves for use inside programs. Before a character that may begin a control
# token it keeps the caller's text from spelling one; the tokenizer drops it. It stands before, so that
# templates find what they look for in a message (`'</think>' in content`).
MARK = "\U0010fffe"
_REPEAT_MAX = 1_000_000  # characters or items of one product, far more than any template makes
_RANGE_MAX = 100_000  # steps of all counted loops of one rendering


class ChatTemplateError(ValueError):
    """The template does not accept these messages, or there is no template."""


class ChatTemplate:
    """One compiled template. `variables` (such as `bos_token`) are what the template may use besides the
    messages. `accepts_tools`: it has a place for tool definitions.
    """

    def __init__(self, source: str, *, variables: dict[str, str], opening: frozenset[str]) -> None:
        environment = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
            self.accepts_tools = "tools" in meta.find_undeclared_variables(environment.parse(source))
        except (TemplateError, RecursionError) as error:
            raise ChatTemplateError(f"the chat template does not compile: {error}") from error
        self.source = source
        self._variables = variables
        self._marked = str.maketrans({char: MARK + char for char in opening} | {MARK: ""})

    def render(
        self,
        messages: list[dict[str, object]],
        *,
        add_generation_prompt: bool,
        tools: list[dict[str, object]] | None = None,
    ) -> str:
        """The conversation as text; a `MARK` stands before each character of a caller's text that may begin a
        control token.
        """
        try:
            return self._template.render(
                messages=self._mark(messages),
                add_generation_prompt=add_generation_prompt,
                tools=self._mark(tools),
                range=_CountedRange(),
                **self._variables,
            )
        except RecursionError:
            raise ChatTemplateError("the messages or tools are nested too deeply") from None
        except (TemplateError, LookupError, TypeError, AttributeError, ValueError, ArithmeticError) as error:
            raise ChatTemplateError(f"the chat template does not accept these messages: {error}") from error

    def _mark(self, value: object) -> object:
        if isinstance(value, str):
            return value.translate(self._marked)
        if isinstance(value, dict):
            return {self._mark(key): self._mark(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._mark(item) for item in value]
        return value


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, without products and powers that would fill memory."""

    intercepted_binops = frozenset(["*", "**", "%"])

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The result of an operator, refused with `SecurityError` when it would be too long."""
        if operator == "**" and not (_is_small(left) and _is_small(right)):
            raise SecurityError("a power of great numbers")
        if operator == "*" and _length(left) * max(1, _number(right)) > _REPEAT_MAX:
            raise SecurityError("a text or list repeated too often")
        if operator == "*" and _length(right) * max(1, _number(left)) > _REPEAT_MAX:
            raise SecurityError("a text or list repeated too often")
        if operator == "%" and isinstance(left, str):
            raise SecurityError("formatting with %, whose widths have no limit")
        return super().call_binop(context, operator, left, right)


class _CountedRange:
    """`range` for one rendering: all together may count to `_RANGE_MAX`."""

    def __init__(self) -> None:
        self._left = _RANGE_MAX

    def __call__(self, *bounds: int) -> range:
        counted = range(*bounds)
        self._left -= len(counted)
        if self._left < 0:
            raise SecurityError(f"loops of more than {_RANGE_MAX} steps")
        return counted


def _is_small(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) <= 1000


def _length(value: object) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Plain JSON: Jinja's own filter escapes for HTML. Parameters as templates of transformers name them."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    """Today's date, as templates put it into system prompts."""
    return datetime.now(UTC).strftime(pattern)
