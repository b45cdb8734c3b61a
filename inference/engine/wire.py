"""What the front and the engine's loop say to each other, and how it lies in a stream of bytes.

A message is a length (4 bytes, big-endian) and that many bytes of msgpack. Commands go to the engine; all
that one step brought comes back in one message. A new command is one structure here and one case in
`EngineLoop`.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from inference.engine.types import EngineConfig, EngineStats, FinishReason, GenerationRequest, TokenEvent

MAX_FRAME_BYTES = 64 * 1024 * 1024
_LENGTH_BYTES = 4
_ENCODER = msgspec.msgpack.Encoder()
_T = TypeVar("_T")


class ProtocolError(ValueError):
    """The other side sent something that is no message; nothing after it can be trusted."""


class Open(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The first message: which checkpoint to serve, and what the engine's log lines carry."""

    model_dir: str
    config: EngineConfig
    log_fields: dict[str, str]


class Submit(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Begin a request that the front has checked."""

    request: GenerationRequest


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Forget a request; one that has ended is no error."""

    request_id: str


class LoadAdapter(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Serve the LoRA adapter in `folder` as `name`. Answered by `AdapterChanged`."""

    name: str
    folder: str


class DropAdapter(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Take no more requests for an adapter. Answered by `AdapterChanged`."""

    name: str


class Stop(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """End after the current step."""


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The model is loaded."""

    max_model_len: int
    vocab_size: int
    profiles: tuple[str, ...] = ()


class Refused(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The checkpoint or the configuration cannot be used."""

    problem: str


class Stepped(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """What one step brought, and the state after it. On a beat the front hands the events on when they are
    due, by `time.perf_counter`, which is the same for all processes.
    """

    events: list[TokenEvent]
    stats: EngineStats
    due_s: float = 0.0


class AdapterChanged(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The answer to the earliest adapter command without one; `problem` says why nothing was changed."""

    problem: str | None


class Ended(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """The last message: the loop has ended, and with it every request."""

    events: list[TokenEvent]
    stats: EngineStats
    reason: FinishReason


Command = Submit | Cancel | LoadAdapter | DropAdapter | Stop
Report = Stepped | AdapterChanged | Ended


def frame_encode(message: msgspec.Struct) -> bytes:
    """The bytes of one message. Raises ProtocolError for what msgpack or a frame cannot carry."""
    frame = bytearray(_LENGTH_BYTES)
    try:
        _ENCODER.encode_into(message, frame, _LENGTH_BYTES)
    except (OverflowError, UnicodeEncodeError) as error:
        raise ProtocolError(f"not to be encoded: {error}") from error
    size = len(frame) - _LENGTH_BYTES
    if size > MAX_FRAME_BYTES:
        raise ProtocolError(f"a message of {size} bytes is larger than {MAX_FRAME_BYTES}")
    frame[:_LENGTH_BYTES] = size.to_bytes(_LENGTH_BYTES, "big")
    return bytes(frame)


class FrameReader(Generic[_T]):
    """Cuts a stream of bytes into messages of one kind, a structure or a union of them."""

    def __init__(self, kind: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[_T] = msgspec.msgpack.Decoder(kind)
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[_T]:
        """The messages that are complete now, in order. Raises ProtocolError."""
        buffer = self._buffer
        buffer += data
        messages: list[_T] = []
        start = 0
        while (body := start + _LENGTH_BYTES) <= len(buffer):
            size = int.from_bytes(buffer[start:body], "big")
            if size > MAX_FRAME_BYTES:
                raise ProtocolError(f"a message of {size} bytes is larger than {MAX_FRAME_BYTES}")
            if body + size > len(buffer):
                break
            messages.append(self._decode(bytes(buffer[body : body + size])))
            start = body + size
        del buffer[:start]
        return messages

    def _decode(self, body: bytes) -> _T:
        try:
            return self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"no message of this protocol: {error}") from error
