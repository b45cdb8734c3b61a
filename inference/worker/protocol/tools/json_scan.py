"""Where a JSON object in a stream of text ends."""

from __future__ import annotations


class JsonScan:
    """Follows brackets and strings, not the whole grammar: enough to find the end of a well-formed object.

    ``fresh`` until something of it was given out; ``complete`` once its last bracket has come.
    """

    __slots__ = ("_depth", "_escaped", "_in_string", "complete", "fresh")

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self.complete = False
        self.fresh = True

    def take(self, text: str) -> str:
        """The part of ``text`` that belongs to the object."""
        for place, char in enumerate(text):
            if self._in_string:
                self._step_in_string(char)
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self.complete = True
                    return text[: place + 1]
        return text

    def _step_in_string(self, char: str) -> None:
        if self._escaped:
            self._escaped = False
        elif char == "\\":
            self._escaped = True
        elif char == '"':
            self._in_string = False
