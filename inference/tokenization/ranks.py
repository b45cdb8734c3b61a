"""Files of tiktoken: a line for each token, with its bytes in base64 and its rank."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

from inference.tokenization.vocabulary import IDS_MAX, TokenizerError

_FILE_BYTES_MAX = 1 << 24  # the published one has 2.8 million
_TOKEN_BYTES_MAX = 512  # what follows takes time in the square of it; the longest published has 256


def ranks_read(path: Path) -> list[bytes]:
    """The tokens in the order of their ranks, which are their ids: every number from 0 on, and every single
    byte among them. Raises `TokenizerError`.
    """
    try:
        if path.stat().st_size > _FILE_BYTES_MAX:
            raise ValueError(f"more than {_FILE_BYTES_MAX} bytes")
        token_of = _ranked(path.read_bytes().splitlines())
        return _in_order(token_of)
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{path}: not a usable list of ranks: {error}") from error


def _ranked(lines: list[bytes]) -> dict[int, bytes]:
    token_of: dict[int, bytes] = {}
    for number, token, rank in _entries(lines):
        if rank in token_of:
            raise ValueError(f"line {number}: rank {rank} again")
        token_of[rank] = token
    return token_of


def _entries(lines: list[bytes]) -> Iterator[tuple[int, bytes, int]]:
    """Number of the line, token and rank of all lines that are not empty."""
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 2 or not fields[1].isdigit():
            raise ValueError(f"line {number}: expected a token in base64 and its rank, found {line[:64]!r}")
        try:
            token, rank = base64.b64decode(fields[0], validate=True), int(fields[1])
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if not 0 < len(token) <= _TOKEN_BYTES_MAX or rank >= IDS_MAX:
            raise ValueError(f"line {number}: a token of {len(token)} bytes with rank {rank}")
        yield number, token, rank


def _in_order(token_of: dict[int, bytes]) -> list[bytes]:
    missing = next((rank for rank in range(len(token_of)) if rank not in token_of), None)
    if missing is not None:
        raise ValueError(f"rank {missing} is missing")
    tokens = [token_of[rank] for rank in range(len(token_of))]
    known = set(tokens)
    if len(known) < len(tokens):
        raise ValueError("two ranks of one token")
    absent = next((byte for byte in range(256) if bytes([byte]) not in known), None)
    if absent is not None:
        raise ValueError(f"no token for the byte {absent:#04x}")
    return tokens
