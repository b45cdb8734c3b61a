"""Response headers of the wire formats."""

from __future__ import annotations

from typing import NamedTuple

Header = tuple[bytes, bytes]

JSON_TYPE: Header = (b"content-type", b"application/json")
EVENT_STREAM: tuple[Header, ...] = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
)


class RateFigures(NamedTuple):
    """A key's buckets after a request: limits a minute, what is left, and ms until full again."""

    requests_limit: int
    requests_left: int
    requests_reset_ms: int
    tokens_limit: int
    tokens_left: int
    tokens_reset_ms: int

    def headers(self) -> tuple[Header, ...]:
        """``x-ratelimit-{limit,remaining,reset}-{requests,tokens}``."""
        return (
            (b"x-ratelimit-limit-requests", b"%d" % self.requests_limit),
            (b"x-ratelimit-remaining-requests", b"%d" % max(0, self.requests_left)),
            (b"x-ratelimit-reset-requests", duration_text(self.requests_reset_ms)),
            (b"x-ratelimit-limit-tokens", b"%d" % self.tokens_limit),
            (b"x-ratelimit-remaining-tokens", b"%d" % max(0, self.tokens_left)),
            (b"x-ratelimit-reset-tokens", duration_text(self.tokens_reset_ms)),
        )


def duration_text(milliseconds: int) -> bytes:
    """``12ms``, ``1.5s``, ``1m3s``: as OpenAI writes durations."""
    if milliseconds < 1000:
        return b"%dms" % max(0, milliseconds)
    minutes, rest = divmod(milliseconds, 60_000)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    return (f"{minutes}m{seconds}s" if minutes else f"{seconds}s").encode()
