"""From token ids to text that may be shown: complete characters, and nothing that a stop string may still
swallow.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence


class TextStream:
    """The text of one request, token by token. `token_bytes` maps ids to the bytes they stand for."""

    def __init__(self, token_bytes: Sequence[bytes], stop: tuple[str, ...]) -> None:
        self._token_bytes = token_bytes
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def push(self, token: int) -> tuple[str, bool]:
        """Add a token; returns the text released by it and whether a stop string was met."""
        data = self._token_bytes[token] if token < len(self._token_bytes) else b""
        return self._release(self._decoder.decode(data))

    def flush(self) -> tuple[str, bool]:
        """The end: what was held back, with U+FFFD for an incomplete character; and whether a stop string was
        met.
        """
        text, stopped = self._release(self._decoder.decode(b"", final=True))
        rest, self._held = self._held, ""
        return text + rest, stopped

    def _release(self, text: str) -> tuple[str, bool]:
        if not self._stop:
            return text, False
        self._held += text
        found = [at for at in map(self._held.find, self._stop) if at >= 0]
        if found:
            released, self._held = self._held[: min(found)], ""
            return released, True
        keep = max(map(self._overlap, self._stop))
        cut = len(self._held) - keep
        released, self._held = self._held[:cut], self._held[cut:]
        return released, False

    def _overlap(self, stop: str) -> int:
        """Length of the longest end of the held text that begins `stop`."""
        longest = min(len(stop) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(stop[:n])), 0)
