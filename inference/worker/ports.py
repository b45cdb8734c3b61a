"""What the worker needs of an engine, so that the HTTP layer can be tested with any of this shape."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Protocol

from inference.engine.types import EngineStats, EventBatch, GenerationRequest


class TokenizerPort(Protocol):
    """Text to token ids. Control tokens spelled in a caller's text stay ordinary text."""

    @property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The bytes of each token; empty for control tokens."""

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end a text."""

    @property
    def chat_template(self) -> str:
        """The chat template's source; empty where the model has none."""

    @property
    def accepts_tools(self) -> bool:
        """Whether the chat template has a place for tool definitions."""

    def encode(self, text: str, *, add_bos: bool = False, allow_special: bool = False) -> list[int]:
        """Token ids of text, after the begin-of-sequence token if ``add_bos``. Control tokens spelled in it
        are those tokens only with ``allow_special``, which is not for callers' text.
        """

    def decode(self, ids: list[int]) -> str:
        """Text of token ids, without control tokens."""

    def token_name(self, token_id: int) -> tuple[str, bytes]:
        """How a token is shown, and the bytes it stands for."""

    def encode_chat(
        self, messages: list[dict[str, object]], *, tools: list[dict[str, object]] | None = None
    ) -> list[int]:
        """Token ids of a conversation up to where the answer begins. ValueError if the template refuses."""

    def fim_prompt(self, prefix: str, suffix: str) -> list[int]:
        """Token ids that ask for the text between the two. ValueError if the model has no such tokens."""


class EnginePort(Protocol):
    """Continuous batching behind one async generator a call."""

    @property
    def tokenizer(self) -> TokenizerPort:
        """The release's own tokenizer."""

    @property
    def max_model_len(self) -> int:
        """Prompt and completion together, in tokens."""

    async def ended(self) -> None:
        """Wait until nothing is computed any more: after `close`, or because the engine failed."""

    async def close(self) -> None:
        """Cancel what runs and stop."""

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that take requests."""

    async def adapter_load(self, name: str, folder: Path) -> None:
        """Serve the adapter in ``folder`` as ``name``. Raises RequestRejected."""

    async def adapter_drop(self, name: str) -> None:
        """Take no more requests for ``name``. Raises RequestRejected."""

    def stream(self, requests: Sequence[GenerationRequest]) -> AsyncGenerator[EventBatch, None]:
        """Events, each with its request's number, as many as have come, until every request's had a finish
        reason; closing it cancels. Raises RequestRejected at once.
        """

    def stats(self) -> EngineStats:
        """Figures after the latest step."""
