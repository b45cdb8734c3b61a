"""What every chunk and the whole response of one request share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inference.worker.protocol.calls import Endpoint

CHUNK_OBJECT: dict[Endpoint, str] = {"chat": "chat.completion.chunk", "completions": "text_completion"}
WHOLE_OBJECT: dict[Endpoint, str] = {"chat": "chat.completion", "completions": "text_completion"}
_ID_PREFIX: dict[Endpoint, str] = {"chat": "chatcmpl-", "completions": "cmpl-", "embeddings": "emb-"}


@dataclass(frozen=True, slots=True)
class Heading:
    """``created`` is in seconds."""

    endpoint: Endpoint
    request_id: str
    created: int
    model: str
    fingerprint: str

    def fields(self, object_name: str) -> dict[str, Any]:
        """The leading fields, in the order OpenAI sends them."""
        return {
            "id": _ID_PREFIX[self.endpoint] + self.request_id.partition("_")[2],
            "object": object_name,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }
