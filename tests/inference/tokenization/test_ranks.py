"""Files of tiktoken, and what is wrong with bad ones."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from inference.tokenization.ranks import ranks_read
from inference.tokenization.vocabulary import TokenizerError
from tests.inference.kimi import ranks_write

BYTES = [bytes([byte]) for byte in range(256)]


def line(token: bytes, rank: int) -> bytes:
    return b"%s %d\n" % (base64.b64encode(token), rank)


def test_tokens_come_in_the_order_of_their_ranks(tmp_path: Path) -> None:
    path = tmp_path / "tiktoken.model"
    tokens = [*BYTES[::-1], b"ab", " é".encode(), b"\xe4\xbd"]
    ranks_write(path, tokens)
    assert ranks_read(path) == tokens
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"\n".join(lines[::-1]).replace(b"\n", b"\r\n"))  # any order, empty lines between
    assert ranks_read(path) == tokens


@pytest.mark.parametrize(
    ("more", "found"),
    [
        (b"YWI 256\n", "line 257: Incorrect padding"),
        (b"YW*I 256\n", "line 257: "),
        (b"YWI= 256 1\n", "line 257: expected a token in base64 and its rank"),
        (b"YWI=\n", "line 257: expected a token in base64 and its rank"),
        (b"YWI= -1\n", "line 257: expected a token in base64 and its rank"),
        (b"YWI= 2_56\n", "line 257: expected a token in base64 and its rank"),
        (b"YWI= " + b"9" * 5000, "line 257: "),
        (line(b"ab", 1 << 22), "line 257: a token of 2 bytes with rank 4194304"),
        (line(b"a" * 513, 256), "line 257: a token of 513 bytes"),
        (b"= 256\n", "line 257: "),
        (line(b"ab", 7), "line 257: rank 7 again"),
        (line(b"a", 97), "line 257: rank 97 again"),
        (line(b"ab", 257), "rank 256 is missing"),
        (line(b"a", 256), "two ranks of one token"),
    ],
)
def test_a_bad_line_is_said(tmp_path: Path, more: bytes, found: str) -> None:
    path = tmp_path / "tiktoken.model"
    ranks_write(path, BYTES)
    with path.open("ab") as file:
        file.write(more)
    with pytest.raises(TokenizerError, match=rf"tiktoken\.model: not a usable list of ranks: {found}"):
        ranks_read(path)


@pytest.mark.parametrize("cut", [0, 1, 9, 1000])
def test_a_file_cut_short_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "tiktoken.model"
    ranks_write(path, BYTES)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(TokenizerError, match="not a usable list of ranks"):
        ranks_read(path)


def test_every_byte_needs_a_token(tmp_path: Path) -> None:
    path = tmp_path / "tiktoken.model"
    ranks_write(path, [*BYTES[:10], *BYTES[11:]])
    with pytest.raises(TokenizerError, match="no token for the byte 0x0a"):
        ranks_read(path)


def test_an_absurd_size_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "tiktoken.model"
    path.touch()
    os.truncate(path, 1 << 40)  # a hole: takes no room
    with pytest.raises(TokenizerError, match="more than 16777216 bytes"):
        ranks_read(path)


def test_no_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="No such file"):
        ranks_read(tmp_path / "tiktoken.model")
