"""Request bodies to calls. Every refusal names the field and says what to do."""

from __future__ import annotations

import re
from typing import Any, NoReturn, TypeVar

import msgspec

from inference.worker.protocol.bodies import ChatBody, CommonBody, CompletionBody, MessageBody, TokenId
from inference.worker.protocol.calls import (
    Call,
    ChatMessage,
    ChatPrompt,
    Endpoint,
    Role,
    TextPrompt,
    TokenPrompt,
)
from inference.worker.protocol.fields import CHAT_FIELDS, COMPLETION_FIELDS, body_fields, message_fields
from inference.worker.refusal import invalid, unsupported

DEFAULT_COMPLETION_TOKENS = 16

_ROLES: dict[str, Role] = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant",
}  # fmt: skip
_WHERE = re.compile(r"^(?P<problem>.*?) - at `\$\.?(?P<path>.*)`$", re.DOTALL)
_T = TypeVar("_T")


def call_parse(endpoint: Endpoint, body: bytes) -> Call:
    """The call that a request body asks for. Raises RefusalError (400)."""
    raw = _json_object(body)
    return _chat_call(raw) if endpoint == "chat" else _completion_call(raw)


def _chat_call(raw: dict[str, Any]) -> Call:
    body = _convert(body_fields(raw, CHAT_FIELDS), ChatBody)
    messages = tuple(_message(message, f"messages[{index}]") for index, message in enumerate(body.messages))
    limit = body.max_completion_tokens or body.max_tokens
    if body.max_tokens not in (None, limit):
        message = "max_tokens and max_completion_tokens differ. Send max_completion_tokens alone."
        raise invalid(message, param="max_tokens", code="invalid_value")
    return _call("chat", body, ChatPrompt(messages), limit)


def _completion_call(raw: dict[str, Any]) -> Call:
    body = _convert(body_fields(raw, COMPLETION_FIELDS), CompletionBody)
    prompt = _completion_prompt(body.prompt, body.suffix)
    return _call("completions", body, prompt, body.max_tokens or DEFAULT_COMPLETION_TOKENS)


def _call(
    endpoint: Endpoint, body: CommonBody, prompt: ChatPrompt | TextPrompt | TokenPrompt, limit: int | None
) -> Call:
    options = body.stream_options
    if options is not None and not body.stream:
        raise invalid("stream_options is only allowed together with stream: true.", param="stream_options")
    if options is not None and options.include_obfuscation:
        name = "stream_options.include_obfuscation"
        raise unsupported(name, f"{name} is not supported. Remove it.")
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    return Call(
        endpoint=endpoint,
        model=body.model,
        prompt=prompt,
        stream=body.stream,
        include_usage=bool(options and options.include_usage),
        max_tokens=limit,
        temperature=body.temperature,
        top_p=body.top_p,
        seed=body.seed,
        stop=stop,
    )


def _message(raw: dict[str, Any], where: str) -> ChatMessage:
    body = _convert(message_fields(raw, where), MessageBody, where)
    role = _ROLES.get(body.role)
    if body.role in ("tool", "function"):
        raise unsupported(
            f"{where}.role", f"{where}.role: tool results are not supported by this model's workers."
        )
    if role is None:
        message = f"{where}.role: expected system, user or assistant."
        raise invalid(message, param=f"{where}.role", code="invalid_value")
    if isinstance(body.content, str):
        return ChatMessage(role, body.content)
    return ChatMessage(
        role, "".join(_part_text(part, f"{where}.content[{i}]") for i, part in enumerate(body.content))
    )


def _part_text(part: dict[str, Any], where: str) -> str:
    if part.get("type") != "text":
        raise unsupported(f"{where}.type", f"{where}.type: only parts of type 'text' are supported.")
    text = part.get("text")
    if not isinstance(text, str):
        raise invalid(f"{where}.text: a string is required.", param=f"{where}.text", code="invalid_type")
    return text


def _completion_prompt(prompt: str | list[Any], suffix: str | None) -> TextPrompt | TokenPrompt:
    """Text, token ids, or a list with one of either, as evaluation clients send it."""
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        if len(prompt) > 1:
            raise unsupported(
                "prompt", "prompt: one prompt a request is supported. Send one request for each."
            )
        prompt = prompt[0]
    if isinstance(prompt, str):
        return TextPrompt(prompt, suffix)
    if suffix is not None:
        raise invalid(
            "suffix needs a prompt of text, not of token ids.", param="suffix", code="invalid_value"
        )
    return TokenPrompt(tuple(_convert(prompt, list[TokenId], "prompt")))


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid("The body is not valid JSON in UTF-8.", code="invalid_json") from None
    if not isinstance(raw, dict):
        raise invalid("The body must be a JSON object.", code="invalid_json")
    return raw


def _convert(raw: Any, kind: type[_T], where: str = "") -> _T:
    try:
        return msgspec.convert(raw, kind, strict=True)
    except msgspec.ValidationError as error:
        _refuse_value(str(error), where)


def _refuse_value(problem: str, where: str) -> NoReturn:
    """Turn msgspec's ``Expected `float`, got `str` - at `$.top_p` `` into a refusal that names ``top_p``."""
    match = _WHERE.match(problem)
    path = match["path"] if match else ""
    missing = re.search(r"missing required field `(\w+)`", problem)
    if missing:
        path = f"{path}.{missing[1]}" if path else missing[1]
    joint = "" if not (where and path) or path.startswith("[") else "."
    param = f"{where}{joint}{path}" or None
    text = "is required" if missing else (match["problem"] if match else problem)
    code = "missing_required_parameter" if missing else "invalid_value"
    raise invalid(f"{param or 'body'}: {text}.", param=param, code=code)
