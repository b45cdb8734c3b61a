"""The first request: streamed through the OpenAI SDK, then its receipt and its line on the bill."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import httpx
from openai import DefaultHttpxClient, OpenAI

from stack.served import Billed, Served

QUESTION = "Who are you?"
MAX_TOKENS = 96
_POSTED_WITHIN_S = 20.0
_REQUEST_TIMEOUT_S = 60.0


class DemoError(RuntimeError):
    """The first request did not come through; the message says where it stopped."""


def request_stream(*, base_url: str, api_key: str, model: str, on_text: Callable[[str], None]) -> Served:
    """Ask QUESTION and hand on each piece of text as it arrives. Raises openai.OpenAIError, DemoError."""
    with OpenAI(
        base_url=base_url,
        api_key=api_key,
        timeout=_REQUEST_TIMEOUT_S,
        http_client=DefaultHttpxClient(trust_env=False, timeout=_REQUEST_TIMEOUT_S),
    ) as client:
        began = time.monotonic()
        raw = client.chat.completions.with_raw_response.create(
            model=model,
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=MAX_TOKENS,
            stream=True,
            stream_options={"include_usage": True},
        )
        pieces: list[str] = []
        finish_reason, usage, first_token_s = "", None, 0.0
        for chunk in raw.parse():
            usage = chunk.usage or usage
            for choice in chunk.choices:
                finish_reason = choice.finish_reason or finish_reason
                if choice.delta.content:
                    first_token_s = first_token_s or time.monotonic() - began
                    pieces.append(choice.delta.content)
                    on_text(choice.delta.content)
        if usage is None:
            raise DemoError("the stream ended without a usage chunk")
        headers = raw.headers
        return Served(
            request_id=headers["x-request-id"],
            partner=headers.get("x-tokenworks-partner", ""),
            worker=headers.get("x-tokenworks-worker", ""),
            reason=headers.get("x-tokenworks-reason", ""),
            text="".join(pieces),
            finish_reason=finish_reason,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            first_token_s=first_token_s,
            whole_s=time.monotonic() - began,
        )


def balance_read(*, control_url: str, api_key: str) -> int:
    """The tenant's balance in nano-dollars. Raises DemoError."""
    with _client(control_url, api_key) as client:
        return int(_get(client, "/api/balance")["balance_nano"])


def bill_read(*, control_url: str, api_key: str, request_id: str, balance_before_nano: int) -> Billed:
    """Wait until the meter has posted the request, and read what was posted. Raises DemoError."""
    with _client(control_url, api_key) as client:
        deadline = time.monotonic() + _POSTED_WITHIN_S
        while True:
            response = client.get(f"/api/receipts/{request_id}")
            if response.status_code == 200:
                break
            if response.status_code != 404 or time.monotonic() > deadline:
                raise DemoError(f"no receipt for {request_id}: {_explain(response)}")
            time.sleep(0.1)
        body = response.json()
        return Billed(
            receipt=body["receipt"],
            decision=body["decision"],
            verified=body["verified"],
            bill_line=body["bill_line"],
            balance_before_nano=balance_before_nano,
            balance_after_nano=int(_get(client, "/api/balance")["balance_nano"]),
        )


def _client(control_url: str, api_key: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {api_key}"}
    return httpx.Client(base_url=control_url, headers=headers, trust_env=False, timeout=10.0)


def _get(client: httpx.Client, path: str) -> dict[str, Any]:
    response = client.get(path)
    if response.status_code != 200:
        raise DemoError(f"GET {path}: {_explain(response)}")
    body: dict[str, Any] = response.json()
    return body


def _explain(response: httpx.Response) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return f"status {response.status_code}: {response.json()['error']['message']}"
    return f"status {response.status_code}"
