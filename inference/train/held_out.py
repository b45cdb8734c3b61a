"""Bits per byte on texts never trained on: the measure that does not depend on the tokenizer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from tokenizers import Tokenizer
from torch.nn import functional

from inference.train.corpus import SourceText
from inference.train.network import Network
from inference.train.packing import IGNORE, Batch, Document, pack_rows
from inference.train.vocabulary import SpecialIds

_ROWS_AT_ONCE = 4


@torch.no_grad()
def bits_per_byte(
    network: Network, texts: Sequence[SourceText], tokenizer: Tokenizer, *, row_tokens: int = 1024
) -> float:
    """Negative log2 likelihood of `texts` over their UTF-8 bytes.

    Texts are cut into rows of `row_tokens`; each cut starts again from BOS without memory, and every token is
    predicted exactly once.
    """
    documents = [Document(tokenizer.encode(source.text).ids, divisible=True) for source in texts]
    rows = pack_rows(documents, row_tokens=row_tokens, pad_id=SpecialIds.of(tokenizer).pad)
    nats = sum(
        float(label_losses(network, rows.batch(start, _ROWS_AT_ONCE)).sum())
        for start in range(0, len(rows), _ROWS_AT_ONCE)
    )
    return nats / math.log(2) / sum(len(source.text.encode()) for source in texts)


@torch.no_grad()
def label_losses(network: Network, batch: Batch) -> torch.Tensor:
    """The next-token loss in nats of every labelled position, flat."""
    state = network(batch.id_RT, network.context(batch.position_RT, batch.attention_mask()))
    learned = batch.label_RT != IGNORE
    return functional.cross_entropy(
        network.lm_head(state[learned]), batch.label_RT[learned], reduction="none"
    )
