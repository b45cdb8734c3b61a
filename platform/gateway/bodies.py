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
    EMBEDDING_DECODER,
    MAX_CHOICES,
    SERVED,
    ChatBody,
    CommonBody,
    CompletionBody,
    EmbeddingBody,
    Message,
    Provider,
)

Endpoint = Literal["chat", "completions", "embeddings"]

DEFAULT_CHAT_TOKENS = 1024
DEFAULT_COMPLETION_TOKENS = 16
_FRAMING_TOKENS = 16  # begin of text, roles, separators: at most this many per message, and once per prompt
# templates explain how to call tools, and may spread their definitions over indented lines
_TOOLS_TOKENS = 2048
_TOOLS_GROWTH = 4
_NULL = b"null"

_WHERE = re.compile(r"^(?P<problem>.*?) - at `\$\.?(?P<path>[^`]*)`$", re.DOTALL)
_FIELD = re.compile(r"field `(\w+)`")
_RANGE = re.compile(r"^Expected `(?:int|float|str|array|object)` (?:[<>]|of length)")


class Ask(NamedTuple):
    """A validated request. ``body`` goes to the worker; token counts are upper bounds.

    ``prompts`` are continued ``n`` times each, ``max_tokens`` long at most; that is None when the client
    named none, and ``is_null`` tells an explicit null from absence. ``prompt_tokens_max`` is over all.
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
    prompts: int = 1
    n: int = 1

    @property
    def choices(self) -> int:
        """How many generations this is."""
        return self.prompts * self.n


def ask_parse(endpoint: Endpoint, body: bytes) -> Ask:
    """The request in ``body``. Raises ApiError (400 or 422)."""
    try:
        if endpoint == "chat":
            return _chat_ask(CHAT_DECODER.decode(body), body)
        if endpoint == "embeddings":
            return _embedding_ask(EMBEDDING_DECODER.decode(body), body)
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
    size = _FRAMING_TOKENS + sum(map(_message_tokens_max, body.messages))
    if bytes(body.tools) != _NULL:
        size += _TOOLS_TOKENS + _TOOLS_GROWTH * len(bytes(body.tools))
    explicit_null = body.max_tokens is None or body.max_completion_tokens is None
    return _ask("chat", body, raw, prompt_tokens_max=size, limit=limit, is_null=explicit_null)


def _message_tokens_max(message: Message) -> int:
    content, size = message.content, _FRAMING_TOKENS
    if isinstance(content, str):
        size += _text_bytes(content)
    elif content is not None:
        size += sum(_text_bytes(one.text) for one in content)
    if message.tool_call_id is not None:
        size += _FRAMING_TOKENS + _text_bytes(message.tool_call_id)
    for call in message.tool_calls or ():
        size += 2 * _FRAMING_TOKENS + _text_bytes(call.id) + _text_bytes(call.function.name)
        size += _TOOLS_GROWTH * _text_bytes(call.function.arguments)
    return size


def _chat_limit(body: ChatBody) -> int | None:
    old, new = _given(body.max_tokens), _given(body.max_completion_tokens)
    if old is not None and new is not None and old != new:
        message = "max_tokens and max_completion_tokens differ. Send max_completion_tokens alone."
        raise ApiError(422, message, param="max_tokens", code="invalid_value")
    return new if new is not None else old


def _completion_ask(body: CompletionBody, raw: bytes) -> Ask:
    sizes = _prompt_sizes(body.prompt, "prompt")
    n = body.n or 1
    if len(sizes) * n > MAX_CHOICES:
        raise _out_of_range("n", f"At most {MAX_CHOICES} choices a request, found {len(sizes)} × {n}.")
    if body.best_of is not None and body.best_of != n:
        message = "best_of is not supported beyond n. Remove it."
        raise ApiError(400, message, param="best_of", code="unsupported_parameter")
    if body.suffix is not None and not _is_text(body.prompt):
        raise _out_of_range("suffix", "suffix needs a prompt of text.")
    each = _FRAMING_TOKENS + _text_bytes(body.suffix or "")
    limit, explicit_null = _given(body.max_tokens), body.max_tokens is None
    if limit == 0 and not body.echo:
        raise _out_of_range("max_tokens", "max_tokens: expected at least 1, or 0 together with echo.")
    size = sum(sizes) + each * len(sizes)
    ask = _ask("completions", body, raw, prompt_tokens_max=size, limit=limit, is_null=explicit_null)
    return ask._replace(prompts=len(sizes))


def _embedding_ask(body: EmbeddingBody, raw: bytes) -> Ask:
    sizes = _prompt_sizes(body.input, "input")
    if len(sizes) > MAX_CHOICES:
        raise _out_of_range("input", f"input: at most {MAX_CHOICES} texts a request, found {len(sizes)}.")
    return Ask(
        endpoint="embeddings",
        model=body.model,
        stream=False,
        include_usage=False,
        prompt_tokens_max=sum(sizes) + _FRAMING_TOKENS * len(sizes),
        max_tokens=0,
        is_null=False,
        provider=body.provider,
        body=raw,
        prompts=len(sizes),
    )


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
        n=body.n or 1,
    )


def _out_of_range(param: str, message: str) -> ApiError:
    return ApiError(422, message, param=param, code="invalid_value")


def _given(value: int | UnsetType | None) -> int | None:
    return None if value is UNSET or isinstance(value, UnsetType) else value


def _text_bytes(text: str) -> int:
    """Bytes in UTF-8: a byte-level BPE never makes more tokens of them."""
    return len(text) if text.isascii() else len(text.encode())


def _is_text(prompt: str | list[Any]) -> bool:
    return isinstance(prompt, str) or (bool(prompt) and isinstance(prompt[0], str))


def _prompt_sizes(raw: str | list[str | int | list[int]], where: str) -> list[int]:
    """The most tokens of each prompt: text, token ids, or a list of either."""
    if isinstance(raw, str):
        return [_text_bytes(raw)]
    if not raw:
        raise _out_of_range(where, f"{where}: must not be empty.")
    kind = type(raw[0])
    if not all(type(one) is kind for one in raw):
        message = f"{where}: token ids and text cannot be mixed."
        raise ApiError(400, message, param=where, code="invalid_type")
    if kind is int:
        return [len(raw)]
    return [_text_bytes(one) if isinstance(one, str) else len(one) for one in raw if not isinstance(one, int)]


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
