from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.text import TextStream

BYTES = tuple(bytes([value]) for value in range(256))


def feed(data: bytes, stop: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    """Released pieces, byte by byte, up to a stop or with the flush at the end."""
    stream, pieces = TextStream(BYTES, stop), []
    for byte in data:
        text, stopped = stream.push(byte)
        pieces.append(text)
        if stopped:
            return pieces, True
    text, stopped = stream.flush()
    return [*pieces, text], stopped


def test_characters_wait_for_their_last_byte() -> None:
    assert feed("aé€😀".encode())[0] == ["a", "", "é", "", "", "€", "", "", "", "😀", ""]


def test_broken_bytes_become_replacement_characters() -> None:
    assert "".join(feed(b"a\xe2\x82b\xff")[0]) == "a\ufffdb\ufffd"
    assert feed(b"\xf0\x9f")[0] == ["", "", "\ufffd"]


def test_a_stop_string_over_many_tokens_is_never_shown() -> None:
    assert feed(b"one END two", ("END",)) == (["o", "n", "e", " ", "", "", ""], True)


def test_what_only_looked_like_a_stop_string_is_released() -> None:
    pieces, stopped = feed(b"EN ENE", ("END",))
    assert "".join(pieces) == "EN ENE"
    assert pieces[:3] == ["", "", "EN "]
    assert not stopped


def test_the_earliest_of_several_stop_strings_wins() -> None:
    assert "".join(feed(b"ab|cd#", ("#", "|c"))[0]) == "ab"


def test_a_stop_string_completed_by_the_flush_counts() -> None:
    assert feed(b"x\xc3", ("\ufffd",)) == (["x", "", ""], True)


def test_ids_beyond_the_table_are_silent() -> None:
    assert TextStream(BYTES, ()).push(999) == ("", False)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    text=st.text(alphabet="abé€", max_size=30),
    stop=st.lists(st.text(alphabet="abé€", min_size=1, max_size=4), max_size=3),
)
def test_released_text_is_the_text_before_the_first_stop(text: str, stop: list[str]) -> None:
    pieces, stopped = feed(text.encode(), tuple(stop))
    ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    assert stopped == bool(ends)
    if not ends:
        assert "".join(pieces) == text
    else:  # met when its last character arrives; of those met together, the one that began first
        first = min(end for end, _ in ends)
        assert "".join(pieces) == text[: min(start for end, start in ends if end == first)]
