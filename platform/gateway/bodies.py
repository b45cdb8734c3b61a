"""Request bodies to asks: what admission, routing and relay need to know. Every refusal names its field.

400: not JSON, a missing, unknown or unsupported field, a wrong type. 422: a value out of range.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from core.errors import ApiError
from core.money import dollars_to_nano
from gateway.schemas import (
    CHAT_DECODER,
    COMPLETION_DECODER,
    SERVED,
    ChatBody,
    CommonBody,
    CompletionBody,
    Provider,
)

Endpoint = Literal["chat", "completions"]

DEFAULT_CHAT_TOKENS = 1024
DEFAULT_COMPLETION_TOKENS = 16
_FRAMING_TOKENS = 16  # begin of text, roles, separators: at most this many per message, and once per prompt

_WHERE = re.compile(r"^(?P<problem>.*?) - at `\$\.?(?P<path>[^`]*)`$", re.DOTALL)
_FIELD = re.compile(r"field `(\w+)`")
_RANGE = re.compile(r"^Expected `(?:int|float|str|array|object)` (?:[<>]|of length)")


class Ask(NamedTuple):
    """A validated request. ``body`` goes to the worker; token counts are upper bounds.

    ``max_tokens`` is None when the client named none; ``is_null`` tells an explicit null from absence.
    """

    endpoint: Endpoint
    model: str
    stream: bool
    include_usage: bool
    prompt_tokens_max: int
    max_tokens: int | None
    is_null: bool
    provider: Provider | None
    body: bytes


def ask_parse(endpoint: Endpoint, body: bytes) -> Ask:
    """The request in ``body``. Raises ApiError (400 or 422)."""
    try:
        if endpoint == "chat":
            return _chat_ask(CHAT_DECODER.decode(body), body)
        return _completion_ask(COMPLETION_DECODER.decode(body), body)
    except msgspec.ValidationError as error:
        raise _value_error(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = f"The body is not valid JSON in UTF-8: {error}."
        raise ApiError(400, message, code="invalid_json") from None


def body_with_limit(ask: Ask, limit: int) -> bytes:
    """The body with ``max_tokens`` set, so that the worker's default cannot differ from the hold's."""
    if ask.is_null:
        fields = msgspec.json.decode(ask.body, type=dict[str, msgspec.Raw])
        fields.pop("max_completion_tokens", None)
        return msgspec.json.encode({**fields, "max_tokens": limit})
    opening = ask.body.index(b"{") + 1
    return b'{"max_tokens":%d,%s' % (limit, ask.body[opening:])


def _chat_ask(body: ChatBody, raw: bytes) -> Ask:
    limit = _chat_limit(body)
    size = _FRAMING_TOKENS
    for message in body.messages:
        content = message.content
        size += _FRAMING_TOKENS
        size += (
            _text_bytes(content)
            if isinstance(content, str)
            else sum(_text_bytes(one.text) for one in content)
        )
    explicit_null = body.max_tokens is None or body.max_completion_tokens is None
    return _ask("chat", body, raw, prompt_tokens_max=size, limit=limit, is_null=explicit_null)


def _chat_limit(body: ChatBody) -> int | None:
    old, new = _given(body.max_tokens), _given(body.max_completion_tokens)
    if old is not None and new is not None and old != new:
        message = "max_tokens and max_completion_tokens differ. Send max_completion_tokens alone."
        raise ApiError(422, message, param="max_tokens", code="invalid_value")
    return new if new is not None else old


def _completion_ask(body: CompletionBody, raw: bytes) -> Ask:
    size = _FRAMING_TOKENS + _prompt_tokens_max(body.prompt) + _text_bytes(body.suffix or "")
    if body.suffix is not None and not _is_text(body.prompt):
        raise ApiError(422, "suffix needs a prompt of text.", param="suffix", code="invalid_value")
    limit, explicit_null = _given(body.max_tokens), body.max_tokens is None
    return _ask("completions", body, raw, prompt_tokens_max=size, limit=limit, is_null=explicit_null)


def _ask(
    endpoint: Endpoint,
    body: CommonBody,
    raw: bytes,
    *,
    prompt_tokens_max: int,
    limit: int | None,
    is_null: bool,
) -> Ask:
    options = body.stream_options
    if options is not None and not body.stream:
        message = "stream_options is only allowed together with stream: true."
        raise ApiError(400, message, param="stream_options", code="invalid_value")
    return Ask(
        endpoint=endpoint,
        model=body.model,
        stream=bool(body.stream),
        include_usage=bool(options is not None and options.include_usage),
        prompt_tokens_max=prompt_tokens_max,
        max_tokens=limit,
        is_null=is_null,
        provider=body.provider,
        body=raw,
    )


def _given(value: int | UnsetType | None) -> int | None:
    return None if value is UNSET or isinstance(value, UnsetType) else value


def _text_bytes(text: str) -> int:
    """Bytes in UTF-8: a byte-level BPE never makes more tokens of them."""
    return len(text) if text.isascii() else len(text.encode())


def _is_text(prompt: str | list[Any]) -> bool:
    return isinstance(prompt, str) or (len(prompt) == 1 and isinstance(prompt[0], str))


def _prompt_tokens_max(prompt: str | list[str | int | list[int]]) -> int:
    if isinstance(prompt, str):
        return _text_bytes(prompt)
    if not prompt:
        raise ApiError(422, "prompt: must not be empty.", param="prompt", code="invalid_value")
    first = prompt[0]
    if isinstance(first, int):
        if not all(isinstance(one, int) for one in prompt):
            raise ApiError(
                400, "prompt: token ids and text cannot be mixed.", param="prompt", code="invalid_type"
            )
        return len(prompt)
    if len(prompt) > 1:
        message = "prompt: one prompt a request is supported. Send one request for each."
        raise ApiError(400, message, param="prompt", code="unsupported_parameter")
    return _text_bytes(first) if isinstance(first, str) else len(first)


def price_limit(value: float | str | None, where: str) -> int | None:
    """Dollars per million tokens to nano-dollars. Raises ApiError (422)."""
    if value is None:
        return None
    try:
        nano = dollars_to_nano(Decimal(repr(value)) if isinstance(value, float) else value)
    except ValueError:
        nano = -1
    if nano < 0:
        message = f"provider.max_price.{where}: expected dollars per million tokens, such as 0.12."
        raise ApiError(422, message, param=f"provider.max_price.{where}", code="invalid_value")
    return nano


def _value_error(problem: str) -> ApiError:
    """``Expected `float` <= 2.0 - at `$.temperature` `` into an error that names ``temperature``."""
    match = _WHERE.match(problem)
    path, text = (match["path"], match["problem"]) if match else ("", problem)
    named = _FIELD.search(text)
    if "missing required" in text and named:
        param = _join(path, named[1])
        return ApiError(400, f"{param}: is required.", param=param, code="missing_required_parameter")
    if "unknown field" in text and named:
        param = _join(path, named[1])
        return ApiError(400, f"Unknown parameter {param}. Remove it.", param=param, code="unknown_parameter")
    top = re.split(r"[.\[]", path, maxsplit=1)[0]
    if path and (
        top not in SERVED or (top == "messages" and not path.endswith(("messages", "content", "text")))
    ):
        message = f"{path}: this value is not supported ({text}). Remove it."
        return ApiError(400, message, param=path, code="unsupported_parameter")
    status, code = (422, "invalid_value") if _RANGE.match(text) else (400, "invalid_type")
    return ApiError(status, f"{path or 'body'}: {text}.", param=path or None, code=code)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
