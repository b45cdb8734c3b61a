"""Reads calls out of a model's text as it comes, so that names and arguments can be streamed."""

from __future__ import annotations

from dataclasses import dataclass

from inference.worker.protocol.tools.json_scan import JsonScan
from inference.worker.protocol.tools.styles import ToolStyle

_HEAD_CHARS = 512  # a head longer than this is no call


@dataclass(frozen=True, slots=True)
class CallDelta:
    """A part of call number ``index``: its name once, then fragments of its arguments."""

    index: int
    name: str | None
    arguments: str


Delta = str | CallDelta


class ToolReader:
    """Feed it text; it returns content and parts of calls, holding back what may become either.

    A call that cannot be read is given out as the text it was. ``calls`` counts the calls begun.
    """

    def __init__(self, style: ToolStyle) -> None:
        self._style = style
        self._marks = tuple(mark for mark in (style.opening, style.closing, style.begin) if mark)
        self._held = ""
        self._scan: JsonScan | None = None
        self._in_call = False
        self._white: str | None = None  # what came after a mark, while it is white space only
        self.calls = 0

    def feed(self, text: str) -> list[Delta]:
        """What ``text`` makes certain."""
        self._held += text
        found: list[Delta] = []
        while self._advance(found):
            pass
        return found

    def finish(self) -> list[Delta]:
        """The end of the text: what was held back."""
        rest, self._held = self._held, ""
        if self._scan is not None:
            return []
        if self._in_call:
            return [self._style.begin + rest]
        found: list[Delta] = []
        self._content(found, rest)
        return found

    def _advance(self, found: list[Delta]) -> bool:
        """One step through the held text; False when it takes more text to go on."""
        if not self._in_call:
            return self._read_content(found)
        return self._read_head(found) if self._scan is None else self._read_arguments(found, self._scan)

    def _read_content(self, found: list[Delta]) -> bool:
        held = self._held
        at, mark = min(((held.find(mark), mark) for mark in self._marks if mark in held), default=(-1, ""))
        if at < 0:
            keep = max(_overlap(held, mark) for mark in self._marks)
            self._content(found, held[: len(held) - keep])
            self._held = held[len(held) - keep :]
            return False
        self._content(found, held[:at])
        self._held = held[at + len(mark) :]
        self._in_call = mark == self._style.begin
        self._white = ""
        return True

    def _content(self, found: list[Delta], text: str) -> None:
        """White space between marks, or after the last, is the style's and not the answer's."""
        text = (self._white or "") + text
        if self._white is not None and not text.strip():
            self._white = text
            return
        self._white = None
        if text:
            found.append(text)

    def _read_head(self, found: list[Delta]) -> bool:
        match = self._style.head.match(self._held)
        if match is not None:
            self._held = self._held[match.end() :]
            self._scan = JsonScan()
            found.append(CallDelta(self.calls, match["name"], ""))
            self.calls += 1
            return True
        if self._style.end in self._held or len(self._held) > _HEAD_CHARS:
            self._content(found, self._style.begin)
            self._in_call = False
            return True
        return False

    def _read_arguments(self, found: list[Delta], scan: JsonScan) -> bool:
        if scan.fresh:
            self._held = self._held.lstrip()
            if self._held.startswith(self._style.end):
                self._held = "{}" + self._held  # a call that says nothing has no arguments
            elif self._style.end.startswith(self._held):
                return False
        if not scan.complete:
            taken = scan.take(self._held)
            self._held = self._held[len(taken) :]
            if taken:
                scan.fresh = False
                found.append(CallDelta(self.calls - 1, None, taken))
        end = self._held.find(self._style.end)
        if not scan.complete or end < 0:
            return False
        self._held = self._held[end + len(self._style.end) :]
        self._scan, self._in_call, self._white = None, False, ""
        return True


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of ``text`` that begins ``mark``."""
    longest = min(len(mark) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(mark[:n])), 0)
