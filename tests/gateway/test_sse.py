"""The receipt frame is taken out, and nothing else is changed, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.sse import FRAME_BYTES_MAX, FrameFilter, FrameTooLargeError

DATA = st.sampled_from(
    [
        b'data: {"a":"event: receipt"}\n\n',
        b'data: {"text":"\xe4\xb8\xad\xe6\x96\x87"}\n\n',
        b": keep-alive\n\n",
        b": keep-alive\n",
        b"event: other\ndata: 1\n\n",
        b'data: {"b":"data: [DONE]"}\n\n',
    ]
)
RECEIPT = b'event: receipt\ndata: {"entry":{"seq":1},"signature":"c2ln"}\n\n'


@settings(max_examples=80, deadline=None, derandomize=True)
@given(
    before=st.lists(DATA, max_size=6),
    after=st.lists(DATA, max_size=3),
    cuts=st.lists(st.integers(1, 40), max_size=40),
)
def test_any_cut_gives_all_but_the_receipt(before: list[bytes], after: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(before) + RECEIPT + b"".join(after) + b"data: [DONE]\n\n"
    frames, out = FrameFilter(), b""
    for size in cuts:
        piece, stream = stream[:size], stream[size:]
        if piece:
            sent = frames.feed(piece)
            assert sent == b"" or sent.endswith(b"\n")
            out += sent
    if stream:
        out += frames.feed(stream)
    assert out == b"".join(before) + b"".join(after) + b"data: [DONE]\n\n"
    assert frames.receipt == b'{"entry":{"seq":1},"signature":"c2ln"}'
    assert not frames.incomplete


def test_byte_by_byte() -> None:
    frames, out = FrameFilter(), b""
    for byte in b"data: 1\n\n" + RECEIPT + b"data: [DONE]\n\n":
        out += frames.feed(bytes([byte]))
    assert out == b"data: 1\n\ndata: [DONE]\n\n"


def test_comment_passes_without_a_blank_line() -> None:
    frames = FrameFilter()
    assert frames.feed(b": keep-alive\n") == b": keep-alive\n"
    assert frames.feed(b"data: 1\n\n") == b"data: 1\n\n"


def test_comment_does_not_carry_a_receipt_past_the_filter() -> None:
    frames = FrameFilter()
    assert frames.feed(b": hi\nevent: receipt\ndata: {}\n") == b""
    assert frames.feed(b"\n") == b": hi\n"
    assert frames.receipt == b"{}"


def test_half_a_frame_stays_back() -> None:
    frames = FrameFilter()
    assert frames.feed(b'data: 1\n\ndata: {"half') == b"data: 1\n\n"
    assert frames.incomplete


def test_endless_frame_is_refused() -> None:
    frames = FrameFilter()
    with pytest.raises(FrameTooLargeError):
        frames.feed(b"data: " + b"x" * (FRAME_BYTES_MAX + 1))
