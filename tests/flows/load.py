"""Clients as simple as possible: one HTTP request each, and an honest account of how it ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from stack.running import Stack

_TIMEOUT = httpx.Timeout(120.0, connect=10.0)


@dataclass(frozen=True)
class Ending:
    """How one request ended for its client.

    ``kind``: ``done`` (``[DONE]`` or a whole answer), ``error`` (an error body or frame with a message),
    ``broken`` (the connection broke), ``silent`` (the stream ended with neither: never allowed).
    """

    kind: str
    request_id: str = ""
    status: int = 0
    detail: str = ""


async def ask(
    client: httpx.AsyncClient,
    stack: Stack,
    number: int,
    *,
    max_tokens: int = 32,
    stream: bool = True,
    to_the_limit: bool = False,
) -> Ending:
    """Send one chat request and read it to its end; ``to_the_limit`` writes on until ``max_tokens``."""
    body = {
        "model": stack.model,
        "messages": [{"role": "user", "content": f"What does math.gcd do? Question {number}."}],
        "max_tokens": max_tokens,
        "temperature": 1.0,
        "seed": number,
        "stream": stream,
    }
    if to_the_limit:
        body["ignore_eos"] = True
    headers = {"authorization": f"Bearer {stack.api_key}"}
    try:
        async with client.stream(
            "POST", f"{stack.base_url}/chat/completions", json=body, headers=headers
        ) as response:
            request_id = response.headers.get("x-request-id", "")
            text = (await response.aread()).decode()
    except httpx.HTTPError as error:
        return Ending("broken", detail=type(error).__name__)
    if response.status_code != 200:
        return Ending("error", request_id, response.status_code, _message(json.loads(text)))
    if not stream:
        return Ending("done", request_id, 200, json.loads(text)["choices"][0]["message"]["content"])
    return _read_frames(text, request_id)


async def ask_many(
    stack: Stack,
    numbers: Sequence[int],
    *,
    max_tokens: int = 32,
    whole_every: int = 0,
    to_the_limit: bool = False,
) -> list[Ending]:
    """Send one request for each number at once; every ``whole_every``-th is not streamed."""
    limits = httpx.Limits(max_connections=len(numbers) + 1)
    async with httpx.AsyncClient(timeout=_TIMEOUT, limits=limits, trust_env=False) as client:
        return await asyncio.gather(
            *(
                ask(
                    client,
                    stack,
                    number,
                    max_tokens=max_tokens,
                    stream=not (whole_every and number % whole_every == 0),
                    to_the_limit=to_the_limit,
                )
                for number in numbers
            )
        )


def _read_frames(text: str, request_id: str) -> Ending:
    frames = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    assert "event: receipt" not in text, "the internal frame must not reach a client"
    if frames and frames[-1] == "[DONE]":
        return Ending("done", request_id, 200, str(len(frames)))
    for frame in frames:
        if frame.startswith('{"error"'):
            return Ending("error", request_id, 200, _message(json.loads(frame)))
    return Ending("silent", request_id, 200, text[-200:])


def _message(body: dict[str, Any]) -> str:
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return str(body["error"]["message"])
