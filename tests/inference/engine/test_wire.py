"""Messages between front and engine: what is sent arrives, however the stream is cut; garbage is refused."""

from __future__ import annotations

import math
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine import wire
from inference.engine.admission import LOGPROBS_MAX, SCORES_MAX
from inference.engine.serving import SocketLine
from inference.engine.types import (
    EngineStats,
    GenerationRequest,
    Grammar,
    SamplingParams,
    TokenEvent,
    TokenLogprob,
)
from inference.engine.wire import (
    MAX_FRAME_BYTES,
    Cancel,
    Command,
    Ended,
    FrameReader,
    ProtocolError,
    Stepped,
    Stop,
    Submit,
    frame_encode,
)

STATS = EngineStats(1, 2, 3, 4, 5, 6, 7, waiting_s=0.5)
PARAMS = SamplingParams(
    max_tokens=9,
    temperature=0.3,
    seed=-(2**63),
    stop=("⌘", "\n\n"),
    logit_bias=((3, -100.0), (4, 1.5)),
    grammar=Grammar("regex", "a+"),
)
REQUEST = GenerationRequest(
    "req_1", tuple(range(1000)), PARAMS, salt="s", adapter="law", priority=-3, deadline_s=1.5
)
EVENT = TokenEvent(
    request_id="req_1",
    text="é",
    token_ids=(1, 2),
    finish_reason="length",
    prompt_tokens=3,
    cached_tokens=2,
    completion_tokens=2,
    logprobs=(TokenLogprob(1, -math.inf, ((5, -0.5),)),),
    prompt_logprobs=(None, TokenLogprob(2, -1.0)),
    embedding=(0.25, -1e-9),
)
COMMANDS: list[Command] = [Submit(REQUEST), Cancel("req_1"), Stop(), Submit(REQUEST), Cancel("")]


def commands_reader() -> FrameReader[Command]:
    return FrameReader(Command)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(min_value=1, max_value=3000), max_size=30))
def test_messages_arrive_in_order_however_the_stream_is_cut(cuts: list[int]) -> None:
    stream = b"".join(map(frame_encode, COMMANDS))
    reader = commands_reader()
    found: list[Command] = []
    for cut in [*cuts, len(stream)]:
        found += reader.feed(stream[:cut])
        stream = stream[cut:]
    assert found == COMMANDS


def test_reports_carry_every_field() -> None:
    reader: FrameReader[Stepped | Ended] = FrameReader(Stepped | Ended)
    reports = [Stepped([EVENT, EVENT], STATS), Ended([], STATS, "error")]
    assert reader.feed(b"".join(map(frame_encode, reports))) == reports


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=0, max_size=60))
def test_a_body_of_garbage_is_refused_and_never_taken_for_more_than_it_is(body: bytes) -> None:
    reader = commands_reader()
    try:
        found = reader.feed(len(body).to_bytes(4, "big") + body)
    except ProtocolError:
        return
    assert found  # the bytes happen to spell a command


@pytest.mark.parametrize(
    "frame",
    [
        (MAX_FRAME_BYTES + 1).to_bytes(4, "big"),
        (0).to_bytes(4, "big"),
        frame_encode(Stepped([EVENT], STATS)),
        frame_encode(Cancel("\u00e9")).replace("\u00e9".encode(), b"\xff\xfe"),
    ],
    ids=["too large", "empty", "not for this side", "no UTF-8"],
)
def test_a_frame_that_is_no_command_is_refused(frame: bytes) -> None:
    with pytest.raises(ProtocolError):
        commands_reader().feed(frame)


@pytest.mark.parametrize("bad", [SamplingParams(1, seed=2**70), SamplingParams(1, stop=("\ud800",))])
def test_what_msgpack_cannot_carry_is_refused_before_it_is_sent(bad: SamplingParams) -> None:
    with pytest.raises(ProtocolError):
        frame_encode(Submit(GenerationRequest("a", (1,), bad)))


def test_a_step_too_large_for_a_message_goes_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "MAX_FRAME_BYTES", 1000)
    events = [TokenEvent(f"r{at}", "x" * 90, (at,), None, 1, 0, 1) for at in range(9)]
    near, far = socket.socketpair()
    with near, far:
        SocketLine(near).publish(Stepped(events, STATS))
        near.shutdown(socket.SHUT_WR)
        reader: FrameReader[Stepped] = FrameReader(Stepped)
        found = [report for data in iter(lambda: far.recv(100), b"") for report in reader.feed(data)]
        assert len(found) > 1
        assert [event for report in found for event in report.events] == events


def test_an_event_too_large_for_any_message_is_its_requests_error_and_nobody_elses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wire, "MAX_FRAME_BYTES", 1000)
    small = TokenEvent("a", "x", (1,), None, 1, 0, 1)
    large = TokenEvent("b", "x" * 1900, (1,), None, 5, 2, 3)
    near, far = socket.socketpair()
    with near, far:
        SocketLine(near).publish(Stepped([small, large], STATS))
        near.shutdown(socket.SHUT_WR)
        reader: FrameReader[Stepped] = FrameReader(Stepped)
        found = [report for data in iter(lambda: far.recv(100), b"") for report in reader.feed(data)]
    events = [event for report in found for event in report.events]
    assert events == [small, TokenEvent("b", "", (), "error", 5, 2, 3)]


def test_the_largest_event_that_admission_allows_fits_one_message() -> None:
    for wanted in (0, LOGPROBS_MAX):
        scored = TokenLogprob(2**31, -1.5, ((2**31, -1.5),) * wanted)
        events = [TokenEvent("r", "", (), None, 1, 0, 0, prompt_logprobs=(scored,) * n) for n in (1, 1001)]
        one, many = (len(frame_encode(Stepped([event], STATS))) for event in events)
        assert (many - one) / 1000 * SCORES_MAX / (1 + wanted) < wire.MAX_FRAME_BYTES / 1.5
