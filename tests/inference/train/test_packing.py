"""Packed rows: nothing leaks between documents, nothing is lost, rows are full."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from inference.train.corpus import SourceText
from inference.train.epochs import Cursor, EpochSource
from inference.train.held_out import bits_per_byte, label_losses
from inference.train.losses import after_next_labels
from inference.train.network import Network
from inference.train.packing import IGNORE, Document, pack_rows

PAD = 2


@settings(max_examples=60, deadline=None, derandomize=True)
@given(sizes=st.lists(st.tuples(st.integers(1, 40), st.booleans()), min_size=1, max_size=12))
def test_every_token_is_learned_once_and_only_inside_its_document(sizes: list[tuple[int, bool]]) -> None:
    documents, fresh = [], 10
    for size, divisible in sizes:
        documents.append(Document([0, *range(fresh, fresh + size)], divisible=divisible))
        fresh += size
    rows = pack_rows(documents, row_tokens=16, pad_id=PAD)
    batch = rows.batch(0, len(rows))
    learned = batch.label_RT[batch.label_RT != IGNORE].tolist()
    kept = [token for document in documents for token in document.ids[1 : None if document.divisible else 16]]
    assert sorted(learned) == sorted(kept)
    for ids, labels, owners in zip(batch.id_RT, batch.label_RT, batch.document_RT, strict=True):
        for place in range(15):
            if labels[place] != IGNORE:
                assert labels[place] == ids[place + 1]
                assert owners[place] == owners[place + 1] >= 0


def test_positions_restart_and_attention_stays_inside() -> None:
    batch = pack_rows([Document([0, 5, 6]), Document([0, 7])], row_tokens=6, pad_id=PAD).batch(0, 1)
    assert batch.position_RT[0].tolist() == [0, 1, 2, 0, 1, 0]
    mask = batch.attention_mask()[0, 0]
    assert mask[4].tolist() == [False, False, False, True, True, False]
    assert mask[1].tolist() == [True, True, False, False, False, False]


def test_only_the_answer_is_learned() -> None:
    batch = pack_rows([Document([0, 5, 6, 7, 8], learn_from=3)], row_tokens=6, pad_id=PAD).batch(0, 1)
    assert batch.label_RT[0].tolist() == [IGNORE, IGNORE, 7, 8, IGNORE, IGNORE]


def test_the_token_after_next_stays_in_its_document() -> None:
    batch = pack_rows([Document([0, 5, 6]), Document([0, 7, 8])], row_tokens=6, pad_id=PAD).batch(0, 1)
    assert after_next_labels(batch)[0].tolist() == [6, IGNORE, IGNORE, 8, IGNORE, IGNORE]


def test_divisible_text_fills_rows(tokenizer: Tokenizer) -> None:
    texts = [SourceText("a.py", "def area(width, height):\n    return width * height\n" * 60)]
    source = EpochSource(texts=texts, tokenizer=tokenizer, seed=1, fim_rate=0.5)
    rows, again = source.rows(Cursor(48)), source.rows(Cursor(48))
    assert (rows.document_RT[:-2] >= 0).mean() > 0.97
    assert (rows.id_RT == again.id_RT).all()
    other = source.rows(Cursor(48, epoch=1))
    assert rows.id_RT.shape != other.id_RT.shape or (rows.id_RT != other.id_RT).any()


def test_a_packed_document_scores_as_it_does_alone(tiny_network: Network) -> None:
    first, second = Document([0, 40, 41, 42, 43, 44]), Document([0, 90, 91, 92])
    together = label_losses(tiny_network, pack_rows([first, second], row_tokens=10, pad_id=PAD).batch(0, 1))
    alone = [
        label_losses(tiny_network, pack_rows([document], row_tokens=10, pad_id=PAD).batch(0, 1))
        for document in (first, second)
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_bits_per_byte_of_an_even_guess(tiny_network: Network, tokenizer: Tokenizer) -> None:
    with torch.no_grad():
        tiny_network.lm_head.weight.zero_()
    texts = [SourceText("a.py", "xyzzy ü" * 30)]
    tokens = len(tokenizer.encode(texts[0].text).ids) - 1
    expected = tokens * torch.log2(torch.tensor(float(tokenizer.get_vocab_size()))) / (8 * 30)
    measured = bits_per_byte(tiny_network, texts, tokenizer, row_tokens=32)
    assert abs(measured - float(expected)) < 1e-3
