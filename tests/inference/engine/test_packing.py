from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.packing import pack_rows
from inference.engine.sequence import Sequence
from inference.engine.step import Draw, Row
from inference.engine.types import GenerationRequest, SamplingParams


def row(number: int, new: int, start: int) -> Row:
    request = GenerationRequest(f"r{number}", (1,), SamplingParams(max_tokens=1))
    return Row(Sequence(request, number, 0), (1,) * new, start, ())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from([1, 1, 1, 2, 9, 200]), st.integers(0, 2000)), min_size=1))
def test_every_token_is_packed_once_with_little_padding(sizes: list[tuple[int, int]]) -> None:
    rows = tuple(row(i, new, start) for i, (new, start) in enumerate(sizes))
    groups = pack_rows(rows)
    covered: dict[int, list[int]] = {}
    for piece in sorted((r for group in groups for r in group), key=lambda piece: piece.start):
        covered.setdefault(piece.sequence.arrival, []).extend(range(piece.start, piece.end))
    assert covered == {r.sequence.arrival: list(range(r.start, r.end)) for r in rows}
    for group in groups:
        new, context = max(len(r.tokens) for r in group), max(r.end for r in group)
        needed = sum(len(r.tokens) * r.end for r in group)
        assert len(group) * new * context <= 1.3 * needed + 1024
        assert len({len(r.tokens) == 1 for r in group}) == 1


def test_only_the_end_of_a_long_row_draws() -> None:
    draw = Draw(SamplingParams(max_tokens=1), seed=0, index=0)
    long = row(0, 300, 50)._replace(draws=(draw,))
    pieces = sorted((r for group in pack_rows([long]) for r in group), key=lambda piece: piece.start)
    assert [(len(piece.tokens), piece.draws) for piece in pieces] == [(128, ()), (128, ()), (44, (draw,))]


def test_even_decoding_is_one_group() -> None:
    assert len(pack_rows(tuple(row(i, 1, 100 + i % 20) for i in range(64)))) == 1


def test_a_long_context_does_not_pad_short_ones() -> None:
    groups = pack_rows((row(0, 1, 4000), *(row(i, 1, 30) for i in range(1, 30))))
    assert [len(group) for group in groups] == [29, 1]
