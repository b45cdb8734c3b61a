from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.assembly import assemble
from inference.engine.packing import arrange, is_long
from inference.engine.sequence import Sequence
from inference.engine.step import Row
from inference.engine.types import GenerationRequest, SamplingParams

PAGE = 4
TURN = torch.ones(4096, 2, dtype=torch.complex64)


def row(number: int, new: int, start: int) -> Row:
    request = GenerationRequest(f"r{number}", (1,), SamplingParams(max_tokens=1))
    pages = tuple(range(-(-(start + new) // PAGE)))
    return Row(Sequence(request, number, 0), tuple(range(new)), start, pages, ())


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from([1, 1, 2, 9, 16, 17, 100, 200]), st.integers(0, 2000)), min_size=1))
def test_every_token_is_in_the_batch_once_with_its_context(sizes: list[tuple[int, int]]) -> None:
    rows = arrange(row(i, new, start) for i, (new, start) in enumerate(sizes))
    assert sorted(one.sequence.arrival for one in rows) == list(range(len(sizes)))
    batch = assemble(rows, page_size=PAGE, turn_XR=TURN)
    spans = []
    if batch.short is not None:
        short = batch.short
        spans = list(zip(short.first_B.tolist(), short.count_B.tolist(), short.end_B.tolist(), strict=True))
    spans += [(one.first, one.count, one.start + one.count) for one in batch.long]
    first = 0
    for one, (start, count, end) in zip(rows, spans, strict=True):
        assert (start, count, end) == (first, len(one.tokens), one.end)
        assert batch.slot_T[first : first + count].tolist() == list(range(one.start, one.end))
        first += count
    assert len(batch.token_T) == first


def test_few_tokens_are_brought_to_the_latents_and_many_are_not() -> None:
    assert not is_long(row(0, 16, 0))
    assert is_long(row(0, 17, 0))
    assert is_long(row(0, 100, 400))
    assert not is_long(row(0, 100, 401))
    assert is_long(row(0, 128, 4000))


def test_rows_that_are_not_arranged_are_refused() -> None:
    with pytest.raises(ValueError, match="not arranged"):
        assemble([row(0, 200, 0), row(1, 1, 5)], page_size=PAGE, turn_XR=TURN)
