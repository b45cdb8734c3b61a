"""`tokenizer.json`, the tokenizers library's own file."""

from __future__ import annotations

import json
from pathlib import Path

import tokenizers

from inference.tokenization.vocabulary import (
    IDS_MAX,
    TokenizerError,
    Vocabulary,
    byte_alphabet,
    bytes_table,
    json_read,
)


def tokenizer_json_read(path: Path) -> Vocabulary:
    """The tokenizer without its added tokens, those tokens, and the bytes of all. Raises `TokenizerError`."""
    data = json_read(path, required=True)
    try:
        entries = data["added_tokens"]
        added = {entry["content"]: entry["id"] for entry in entries}
        control = {entry["content"] for entry in entries if entry["special"]}
        _check_ids(added, data["model"]["vocab"])
        vocab = {token: id_ for token, id_ in data["model"]["vocab"].items() if token not in added}
        plain_data = data | {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        plain_data["model"] = data["model"] | {"vocab": vocab}
        plain = tokenizers.Tokenizer.from_str(json.dumps(plain_data))
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"{path}: not a usable tokenizer: {error!r}") from error
    return Vocabulary(plain, added, bytes_table(_bytes(vocab, path), added, control))


def _check_ids(added: dict[str, int], vocab: dict[str, int]) -> None:
    if not all(isinstance(token, str) and token for token in added):
        raise ValueError("an added token without text")
    for token, id_ in (added | vocab).items():
        if type(id_) is not int or not 0 <= id_ < IDS_MAX:
            raise ValueError(f"the id of {token!r}: expected 0 … {IDS_MAX - 1}, found {id_!r}")


def _bytes(vocab: dict[str, int], path: Path) -> dict[int, bytes]:
    byte_of = {char: byte for byte, char in byte_alphabet().items()}
    try:
        return {id_: bytes(byte_of[char] for char in token) for token, id_ in vocab.items()}
    except KeyError as error:
        raise TokenizerError(f"{path}: expected a byte-level vocabulary") from error
