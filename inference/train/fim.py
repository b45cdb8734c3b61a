"""Fill-in-the-middle: a text cut by characters in three, laid out prefix, suffix, middle."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tokenizers import Tokenizer

from inference.train.vocabulary import SpecialIds


@dataclass(frozen=True, slots=True)
class Infill:
    """A text with a hole: `prefix + middle + suffix` is the original."""

    prefix: str
    middle: str
    suffix: str


def fim_split(text: str, rng: random.Random) -> Infill:
    """Cut `text` at two places: anywhere, or from a cursor to the end of a line soon after."""
    kind = rng.random()
    if kind < 0.3:
        start, end = sorted(rng.randint(0, len(text)) for _ in range(2))
    else:
        start = rng.randint(0, len(text))
        if kind < 0.7:
            start = _line_start(text, start, indented=rng.random() < 0.5)
        lines = 1 if kind < 0.5 or kind >= 0.7 else rng.randint(1, 8)
        end = start
        for _ in range(lines):
            found = text.find("\n", end + 1)
            end = len(text) if found < 0 else found
    return Infill(text[:start], text[start:end], text[end:])


def fim_ids(infill: Infill, tokenizer: Tokenizer, special: SpecialIds) -> list[int]:
    """`BOS fim_begin prefix fim_hole suffix fim_end middle EOS`: the whole training document."""
    return [*fim_prompt_ids(infill, tokenizer, special), *_encode(tokenizer, infill.middle), special.eos]


def fim_prompt_ids(infill: Infill, tokenizer: Tokenizer, special: SpecialIds) -> list[int]:
    """The part before the middle: what a completion request with a suffix is turned into."""
    prefix, suffix = _encode(tokenizer, infill.prefix), _encode(tokenizer, infill.suffix)
    return [special.bos, special.fim_begin, *prefix, special.fim_hole, *suffix, special.fim_end]


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _line_start(text: str, position: int, *, indented: bool) -> int:
    """The start of the line at `position`, after its indentation when `indented`."""
    start = text.rfind("\n", 0, position) + 1
    while indented and start < len(text) and text[start] == " ":
        start += 1
    return start
