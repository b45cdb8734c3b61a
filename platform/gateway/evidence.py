"""What the client was shown, held against what the worker signed."""

from __future__ import annotations

import hashlib

import msgspec

from inference.messages import JournalEntry

_USAGE = b'"usage":{'


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int = 0


class _Function(msgspec.Struct):
    name: str
    arguments: str


class _Call(msgspec.Struct):
    function: _Function


class _Message(msgspec.Struct):
    content: str | None = None
    tool_calls: list[_Call] = msgspec.field(default_factory=list)


class _Choice(msgspec.Struct):
    message: _Message | None = None
    text: str | None = None


class _Shown(msgspec.Struct):
    usage: _Usage
    choices: list[_Choice] = msgspec.field(default_factory=list)


_SHOWN = msgspec.json.Decoder(_Shown)


def has_usage(frames: bytes) -> bool:
    """Whether one of the frames carries a usage object; others say ``usage: null``."""
    return _USAGE in frames


def stream_problems(frames: bytes, entry: JournalEntry) -> list[str]:
    """Problems of the usage chunk, the last frame with one in ``frames``."""
    usage_at = frames.rfind(_USAGE)
    begin = frames.rfind(b"data: ", 0, usage_at) + len(b"data: ")
    return whole_problems(frames[begin:].partition(b"\n\n")[0], entry)[0]


def whole_problems(body: bytes, entry: JournalEntry) -> tuple[list[str], str | None]:
    """Problems of an answer's usage and text, and SHA-256 of the text (None where there is none)."""
    try:
        shown = _SHOWN.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ["answer_unreadable"], None
    problems = []
    if (shown.usage.prompt_tokens, shown.usage.completion_tokens) != (
        entry.prompt_tokens,
        entry.completion_tokens,
    ):
        problems.append("usage_mismatch")
    if not shown.choices:
        return problems, None
    text = "".join(map(_shown_text, shown.choices))
    digest = hashlib.sha256(text.encode()).hexdigest()
    if digest != entry.output_sha256:
        problems.append("output_mismatch")
    return problems, digest


def _shown_text(choice: _Choice) -> str:
    """A choice's text, then name and arguments of each of its calls: what the worker's hash is over."""
    message = choice.message
    if message is None:
        return choice.text or ""
    calls = "".join(call.function.name + call.function.arguments for call in message.tool_calls)
    return (message.content or "") + calls
