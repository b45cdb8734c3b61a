"""What is known of one served request: by the client that made it, and by the utility that billed it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Served:
    """What the client saw of one streamed request. Times in seconds from sending it."""

    request_id: str
    partner: str
    worker: str
    reason: str
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    first_token_s: float
    whole_s: float


@dataclass(frozen=True)
class Billed:
    """What the utility says of it afterwards, as the control API returns it; balances in nano-dollars."""

    receipt: dict[str, Any]
    decision: dict[str, Any]
    verified: dict[str, Any]
    bill_line: dict[str, Any]
    balance_before_nano: int
    balance_after_nano: int
