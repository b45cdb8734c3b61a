"""Rendering a checkpoint's chat template, with the callers' text kept apart from the template's control
tokens.

Jinja templates of published checkpoints are programs of a third party: they run in Jinja's immutable sandbox.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import NoReturn

from jinja2 import TemplateError, meta
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

# A code point that Unicode reserves for use inside programs. After a character that may begin a control token
# it keeps the caller's text from spelling one; the tokenizer drops it.
MARK = "\U0010fffe"


class ChatTemplateError(ValueError):
    """The template does not accept these messages, or there is no template."""


class ChatTemplate:
    """One compiled template. `variables` (such as `bos_token`) are what the template may use besides the
    messages. `accepts_tools`: it has a place for tool definitions.
    """

    def __init__(self, source: str, *, variables: dict[str, str], opening: frozenset[str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
            self.accepts_tools = "tools" in meta.find_undeclared_variables(environment.parse(source))
        except TemplateError as error:
            raise ChatTemplateError(f"the chat template does not compile: {error}") from error
        self.source = source
        self._variables = variables
        self._marked = str.maketrans({char: char + MARK for char in opening} | {MARK: ""})

    def render(
        self,
        messages: list[dict[str, object]],
        *,
        add_generation_prompt: bool,
        tools: list[dict[str, object]] | None = None,
    ) -> str:
        """The conversation as text; each character of a caller's text that may begin a control token has a
        `MARK`.
        """
        try:
            return self._template.render(
                messages=self._mark(messages),
                add_generation_prompt=add_generation_prompt,
                tools=self._mark(tools),
                **self._variables,
            )
        except (TemplateError, TypeError, KeyError, AttributeError, ValueError) as error:
            raise ChatTemplateError(f"the chat template does not accept these messages: {error}") from error

    def _mark(self, value: object) -> object:
        if isinstance(value, str):
            return value.translate(self._marked)
        if isinstance(value, dict):
            return {self._mark(key): self._mark(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._mark(item) for item in value]
        return value


def _tojson(value: object, indent: int | None = None) -> str:
    """Plain JSON: Jinja's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    """Today's date, as templates put it into system prompts."""
    return datetime.now(UTC).strftime(pattern)
