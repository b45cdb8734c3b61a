"""Epochs of packed rows, each a pure function of corpus, tokenizer, seed and epoch number."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from inference.train.corpus import SourceText
from inference.train.fim import fim_ids, fim_split
from inference.train.packing import Document, Rows, pack_rows
from inference.train.seeds import seeded
from inference.train.vocabulary import SpecialIds

# Characters per row token a segment may have: with its special tokens it then rarely outgrows a row.
_CHARACTERS_PER_TOKEN = 3.0


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where training stands in its data: the epoch (and its row length) and the next row."""

    row_tokens: int
    epoch: int = 0
    row: int = 0


@dataclass(frozen=True, slots=True)
class EpochSource:
    """Everything rows are made from.

    Question/answer `pairs` join epochs of rows of at least `pair_row_tokens`, as `pair_share` of their
    tokens.
    """

    texts: Sequence[SourceText]
    tokenizer: Tokenizer
    seed: int
    fim_rate: float
    pairs: Sequence[Document] = ()
    pair_share: float = 0.0
    pair_row_tokens: int = 0

    def rows(self, cursor: Cursor) -> Rows:
        """The rows of the epoch `cursor` points into."""
        rng = seeded(self.seed, cursor.epoch, cursor.row_tokens)
        if self.pairs and self.pair_share and cursor.row_tokens >= self.pair_row_tokens:
            documents = self._mixed(cursor.row_tokens, rng)
        else:
            documents = list(self._documents(cursor.row_tokens, rng))
        rng.shuffle(documents)
        pad = SpecialIds.of(self.tokenizer).pad
        return pack_rows(documents, row_tokens=cursor.row_tokens, pad_id=pad)

    def _documents(self, row_tokens: int, rng: random.Random) -> Iterator[Document]:
        special = SpecialIds.of(self.tokenizer)
        for source in rng.sample(self.texts, len(self.texts)):
            segments = list(segments_of(source.text, int(row_tokens * _CHARACTERS_PER_TOKEN), rng))
            for number, segment in enumerate(segments):
                if rng.random() < self.fim_rate:
                    ids = fim_ids(fim_split(segment, rng), self.tokenizer, special)
                    if len(ids) <= row_tokens:
                        yield Document(ids)
                        continue
                end = [special.eos] if number == len(segments) - 1 else []
                ids = self.tokenizer.encode(segment).ids
                yield Document([*ids, *end], divisible=True)

    def _mixed(self, row_tokens: int, rng: random.Random) -> list[Document]:
        """All pairs once, with as many corpus tokens as the share asks for."""
        pair_tokens = sum(len(pair.ids) for pair in self.pairs)
        wanted = pair_tokens * (1 - self.pair_share) / self.pair_share
        total, kept = 0, list(self.pairs)
        for document in self._documents(row_tokens, rng):
            total += len(document.ids)
            kept.append(document)
            if total >= wanted:
                break
        return kept


def segments_of(text: str, characters_max: int, rng: random.Random) -> Iterator[str]:
    """Consecutive pieces that together are `text`, of random length, ending at line ends where possible."""
    start = 0
    while start < len(text):
        end = start + rng.randint(characters_max // 4, characters_max)
        if end < len(text):
            line_end = text.rfind("\n", start, end)
            end = line_end + 1 if line_end > start else end
        yield text[start:end]
        start = end
