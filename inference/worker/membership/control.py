"""Calls to the control plane, retried while it may still answer."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Mapping
from typing import Any

import httpx

from inference.worker.logs import log_event
from inference.worker.membership.errors import RefusedError, UnreachableError

GIVE_UP_AFTER_S = 120.0
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
_CALL_TIMEOUT_S = 15.0
_JITTER = random.SystemRandom()
_TRY_AGAIN = frozenset({408, 425, 429})


async def control_post(
    client: httpx.AsyncClient, url: str, body: Mapping[str, Any], *, give_up_after_s: float = GIVE_UP_AFTER_S
) -> dict[str, Any]:
    """POST JSON and return the JSON object answered.

    Raises RefusedError when the answer is a definite no, UnreachableError when none came in time.
    """
    deadline_s = time.monotonic() + give_up_after_s
    pause_s = FIRST_PAUSE_S
    while True:
        try:
            response = await client.post(url, json=body, timeout=_CALL_TIMEOUT_S)
            if response.status_code < 300:
                return _object(response)
            problem = _problem(response)
            if response.status_code < 500 and response.status_code not in _TRY_AGAIN:
                raise RefusedError(problem)
        except httpx.HTTPError as error:
            problem = f"the control plane at {url} does not answer ({type(error).__name__})"
        if time.monotonic() + pause_s > deadline_s:
            raise UnreachableError(problem)
        log_event("control_retry", level=logging.WARNING, problem=problem, pause_s=round(pause_s, 2))
        await asyncio.sleep(pause_s * _JITTER.uniform(0.75, 1.25))
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise RefusedError("the control plane answered with something that is no JSON object")
    return answer


def _problem(response: httpx.Response) -> str:
    """The message of a four-field error, or at least its status."""
    try:
        error = response.json()["error"]
        return f"{response.status_code} {error['code']}: {error['message']}"
    except (ValueError, KeyError, TypeError):
        return f"the control plane answered with status {response.status_code}"
