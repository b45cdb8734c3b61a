"""What the readers of tokenizer files share: their result, their error, and how bytes are spelled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

IDS_MAX = 1 << 22  # beyond any vocabulary: the table of all ids is made at once


class TokenizerError(ValueError):
    """The folder's tokenizer files are missing or of a kind that is not served."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`plain` encodes text and knows no added token; `added` are those, with their ids.

    `token_bytes[id]` are the bytes a token stands for, empty for control tokens. `begins`: texts begin with
    the begin-of-sequence token even where the settings do not ask for it.
    """

    plain: tokenizers.Tokenizer
    added: dict[str, int]
    token_bytes: tuple[bytes, ...]
    begins: bool = True


def byte_alphabet() -> dict[int, str]:
    """The printable character that stands for each byte in byte-level vocabularies: itself where it is
    printable, else the next free one from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {byte: chr(byte) for byte in printable}
    return alphabet | {byte: chr(0x100 + place) for place, byte in enumerate(others)}


def bytes_table(
    tokens: Mapping[int, bytes], added: Mapping[str, int], control: Set[str]
) -> tuple[bytes, ...]:
    """Bytes by id: of ordinary tokens, and of added ones unless they are control tokens."""
    table = [b""] * (max([*tokens, *added.values()], default=-1) + 1)
    for id_, data in tokens.items():
        table[id_] = data
    for name, id_ in added.items():
        table[id_] = b"" if name in control else name.encode()
    return tuple(table)


def json_read(path: Path, *, required: bool = False) -> dict[str, Any]:
    """The object in a JSON file; empty without the file unless it is `required`. Raises `TokenizerError`."""
    if not required and not path.exists():
        return {}
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TokenizerError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(data, dict):
        raise TokenizerError(f"{path}: expected a JSON object")
    return data
