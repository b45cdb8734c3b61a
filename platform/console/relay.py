"""From the playground's form to the gateway and back: one request, its answer passed on as it comes.

Events sent to the page: ``start`` {request_id}, ``delta`` {text}, ``end`` {finish_reason}, and ``problem``
{message, code} instead of or after any of them.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from functools import cache
from typing import Annotated, Any, Literal

import httpx
import msgspec
from msgspec import Meta

Text = Annotated[str, Meta(max_length=20_000)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
MaxTokens = Annotated[int, Meta(ge=1, le=100_000)]

_TIMEOUT = httpx.Timeout(connect=5, read=60, write=10, pool=5)


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One turn of the conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


class ChatAsk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="mode", tag="chat"):
    """A conversation to continue."""

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    messages: Annotated[list[Message], Meta(min_length=1, max_length=100)]
    temperature: Temperature
    max_tokens: MaxTokens


class FimAsk(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="mode", tag="fim"):
    """A gap to fill between two pieces of code."""

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    prefix: Text
    suffix: Text
    temperature: Temperature
    max_tokens: MaxTokens


Ask = ChatAsk | FimAsk
_DECODER: msgspec.json.Decoder[Ask] = msgspec.json.Decoder(Ask)


def ask_parse(body: bytes) -> Ask:
    """The form as the page's script sends it. Raises msgspec.DecodeError naming the field."""
    return _DECODER.decode(body)


async def answer_relay(*, gateway_url: str, secret: str, ask: Ask) -> AsyncIterator[bytes]:
    """The gateway's answer as events for the page; leaving early closes the request and stops the work."""
    path, body = _gateway_request(ask)
    headers = {"authorization": f"Bearer {secret}"}
    try:
        async with (
            httpx.AsyncClient(
                base_url=gateway_url, timeout=_TIMEOUT, verify=_tls(), trust_env=False
            ) as client,
            client.stream("POST", path, json=body, headers=headers) as response,
        ):
            if response.status_code != httpx.codes.OK:
                yield _problem(_error_of(await response.aread()))
                return
            yield _event("start", {"request_id": response.headers.get("x-request-id", "")})
            async for event in _events(response):
                yield event
    except httpx.HTTPError:
        yield _problem({"message": "The gateway cannot be reached, or was lost. Try again in a moment."})


async def _events(response: httpx.Response) -> AsyncIterator[bytes]:
    finish_reason: str | None = None
    async for line in response.aiter_lines():
        if not line.startswith("data: "):
            continue
        data = line.removeprefix("data: ")
        if data == "[DONE]":
            yield _event("end", {"finish_reason": finish_reason})
            return
        chunk: dict[str, Any] = json.loads(data)
        if "error" in chunk:
            yield _problem(chunk["error"])
            return
        for choice in chunk["choices"]:
            finish_reason = choice.get("finish_reason") or finish_reason
            text = choice["delta"].get("content") if "delta" in choice else choice.get("text")
            if text:
                yield _event("delta", {"text": text})
    yield _problem({"message": "The answer was cut off. What was produced is charged; try again."})


def _gateway_request(ask: Ask) -> tuple[str, dict[str, Any]]:
    common: dict[str, Any] = {
        "model": ask.model,
        "temperature": ask.temperature,
        "max_tokens": ask.max_tokens,
        "stream": True,
    }
    if isinstance(ask, ChatAsk):
        return "/v1/chat/completions", {**common, "messages": msgspec.to_builtins(ask.messages)}
    return "/v1/completions", {**common, "prompt": ask.prefix, "suffix": ask.suffix}


def _error_of(body: bytes) -> dict[str, Any]:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return {"message": "The gateway gave an answer that cannot be read. Try again in a moment."}
    return error if isinstance(error, dict) else {"message": str(error)}


def _problem(error: dict[str, Any]) -> bytes:
    return _event("problem", {"message": error.get("message", ""), "code": error.get("code")})


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()
