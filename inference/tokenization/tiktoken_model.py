"""`tiktoken.model` with `tokenizer_config.json`, as Kimi K2 publishes its tokenizer.

The folder's own program for it (`tokenization_kimi.py`) is never run: what it does is here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, pre_tokenizers

from inference.tokenization.ranks import ranks_read
from inference.tokenization.vocabulary import TokenizerError, Vocabulary, byte_alphabet, bytes_table

_CLASS = "TikTokenTokenizer"  # the published name; its pattern is in no file but the program
_RESERVED = 256  # ids after those of the ranks, for added tokens
_LETTERS = r"\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]"
_UPPER, _LOWER = rf"[\p{{Lu}}\p{{Lt}}{_LETTERS}]", rf"[\p{{Ll}}{_LETTERS}]"
_SHORT = "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"  # of contractions
# What a text is cut into before pairs are merged; in each place the first that fits.
KIMI_PATTERN = "|".join(
    (
        r"\p{Han}+",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SHORT}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SHORT}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)


def tiktoken_model_read(path: Path, settings: Mapping[str, Any]) -> Vocabulary:
    """The tokenizer of `path`; `settings` are those of `tokenizer_config.json`. Raises `TokenizerError`."""
    if settings.get("tokenizer_class", _CLASS) != _CLASS:
        raise TokenizerError(f"{path}: only {_CLASS} is known, not {settings['tokenizer_class']!r}")
    tokens = ranks_read(path)
    try:
        added, control = _added(settings.get("added_tokens_decoder", {}), len(tokens))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        place = path.with_name("tokenizer_config.json")
        raise TokenizerError(f"{place}: added_tokens_decoder: {error!r}") from error
    table = bytes_table(dict(enumerate(tokens)), added, control)
    return Vocabulary(byte_pairs(tokens), added, table, begins=False)


def byte_pairs(tokens: Sequence[bytes]) -> tokenizers.Tokenizer:
    """A tokenizer that encodes as tiktoken does with `tokens` in the order of their ranks.

    tiktoken joins the two neighbours whose bytes together have the lowest rank, again and again; the library
    wants the pairs named. To name every cut of a token into two others is exact, though only one is made:
    what is joined within the bytes of a token, until two parts are left, depends on those bytes alone, so
    the other cuts never come up. A piece that is a token as a whole is taken as it is.
    """
    alphabet = {byte: ord(char) for byte, char in byte_alphabet().items()}
    name_of = {token: token.decode("latin-1").translate(alphabet) for token in tokens}
    vocab = {name: rank for rank, name in enumerate(name_of.values())}
    plain = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=list(_pairs(name_of)), ignore_merges=True))
    split = pre_tokenizers.Split(tokenizers.Regex(KIMI_PATTERN), behavior="isolated")
    spell = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    plain.pre_tokenizer = pre_tokenizers.Sequence([split, spell])
    return plain


def _pairs(name_of: Mapping[bytes, str]) -> Iterator[tuple[str, str]]:
    for token in name_of:
        for cut in range(1, len(token)):
            head, tail = name_of.get(token[:cut]), name_of.get(token[cut:])
            if head is not None and tail is not None:
                yield head, tail


def _added(entries: Mapping[str, Any], first: int) -> tuple[dict[str, int], set[str]]:
    """Names and ids of the tokens after the ranks, and which of them are control tokens: those that the
    settings call special, and those that they do not name.
    """
    name_of = {int(id_): entry["content"] for id_, entry in entries.items()}
    for id_, name in name_of.items():
        if not first <= id_ < first + _RESERVED or not isinstance(name, str) or not name:
            raise ValueError(f"{name!r} has id {id_}, expected {first} … {first + _RESERVED - 1}")
    reserved = {id_: f"<|reserved_token_{id_}|>" for id_ in range(first, first + _RESERVED)}
    added = {name: id_ for id_, name in (reserved | name_of).items()}
    if len(added) < _RESERVED:
        raise ValueError("two tokens of one name")
    return added, set(added) - {entry["content"] for entry in entries.values() if not entry["special"]}
