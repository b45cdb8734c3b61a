"""Server-sent events on their way through: whole frames go on untouched, the receipt frame stays here."""

from __future__ import annotations

from inference.messages import RECEIPT_EVENT

KEEP_ALIVE = b": keep-alive\n\n"
FRAME_BYTES_MAX = 1024 * 1024
_END = b"\n\n"
_EVENT = b"event: " + RECEIPT_EVENT.encode() + b"\n"
_DATA = b"data: "


class FrameTooLargeError(Exception):
    """The worker sent a frame beyond all measure."""


class FrameFilter:
    """Feed it reads cut at any byte; it returns whole frames only, so what follows can always be a new frame.

    Only bytes are compared, nothing is decoded. ``receipt`` is the data of the receipt frame once it passed.
    """

    __slots__ = ("_held", "receipt")

    def __init__(self) -> None:
        self._held = b""
        self.receipt: bytes | None = None

    @property
    def incomplete(self) -> bool:
        """Whether the worker's last frame is still without its end."""
        return bool(self._held)

    def feed(self, data: bytes) -> bytes:
        """Whole frames to pass on, possibly none. Raises FrameTooLargeError."""
        if self._held:
            data = self._held + data
            self._held = b""
        if not data.endswith(_END):
            data = self._hold_back(data)
        return data if _EVENT not in data else self._take_receipt(data)

    def _hold_back(self, data: bytes) -> bytes:
        cut = data.rfind(_END) + len(_END) if _END in data else 0
        rest = data[cut:]
        if rest.startswith(b":") and rest.find(b"\n") == len(rest) - 1:
            return data  # a comment needs no blank line to take effect
        if len(rest) > FRAME_BYTES_MAX:
            raise FrameTooLargeError
        self._held = rest
        return data[:cut]

    def _take_receipt(self, data: bytes) -> bytes:
        begin = 0 if data.startswith(_EVENT) else data.find(b"\n" + _EVENT) + 1
        while begin or data.startswith(_EVENT):
            end = data.index(_END, begin) + len(_END)
            self.receipt = data[begin : end - len(_END)].partition(_DATA)[2]
            data = data[:begin] + data[end:]
            begin = data.find(b"\n" + _EVENT) + 1
        return data
