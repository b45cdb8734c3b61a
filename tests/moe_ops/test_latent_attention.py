"""Absorbed attention in every form: plain torch and C++ against the definition, and what must not matter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, replace
from functools import partial

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_ops.latent_attention import (
    LatentHeads,
    PagedRows,
    SingleRows,
    cpu,
    cpu_expand,
    latent_decode_,
    latent_expand_,
    pack_latent_heads,
    reference,
)
from moe_ops.linear import WeightFormat, pack_matrix

SCALE, PAGE = 0.21, 4
WIDTHS = [(3, 6, 4, 5, 8), (4, 32, 16, 48, 64), (2, 5, 2, 9, 15), (18, 16, 8, 70, 130)]
natively = partial(
    settings,
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@dataclass(frozen=True)
class Case:
    """Unused places of the cache hold NaN; pages jump about."""

    q_THQ: torch.Tensor
    cache: torch.Tensor
    rows: PagedRows
    heads: LatentHeads
    kv_b_HUL: torch.Tensor
    contexts: list[torch.Tensor]

    def run(self, form: object, rows: PagedRows | None = None, q: torch.Tensor | None = None) -> torch.Tensor:
        q = self.q_THQ if q is None else q
        out = torch.full((len(q), q.shape[1], self.heads.value), float("nan"))
        form(out, q, self.cache, rows or self.rows, heads=self.heads, scale=SCALE)  # type: ignore[operator]
        return out

    def expand(self, form: object, tokens: slice = slice(None)) -> torch.Tensor:
        """The only row's `tokens`, which are its context from the first one on where it has no other."""
        q = self.q_THQ[tokens]
        start = int(self.rows.end_B[0]) - len(self.q_THQ) + (tokens.start or 0)
        out = torch.full((len(q), q.shape[1], self.heads.value), float("nan"))
        pages_P = self.rows.pages_BP[0]
        form(out, q, self.cache, pages_P, start, heads=self.heads, scale=SCALE)  # type: ignore[operator]
        return out


def case(
    sizes: list[tuple[int, int]],
    widths: tuple[int, int, int, int, int] = WIDTHS[0],
    *,
    cache_dtype: torch.dtype = torch.float32,
    weight_format: WeightFormat = "float32",
) -> Case:
    """`sizes` are each row's new tokens and context length."""
    heads, nope, rotary, value, latent = widths
    random = torch.Generator().manual_seed(len(sizes) * 1000 + sizes[0][1])
    total = sum(-(-end // PAGE) for _, end in sizes) + 2
    free = torch.randperm(total, generator=random).tolist()
    cache = torch.full((total, PAGE, latent + rotary), float("nan"), dtype=cache_dtype)
    pages, contexts = [], []
    for _, end in sizes:
        pages.append([free.pop() for _ in range(-(-end // PAGE))])
        contexts.append(torch.randn(end, latent + rotary, generator=random).to(cache_dtype))
        for position, row in enumerate(contexts[-1]):
            cache[pages[-1][position // PAGE], position % PAGE] = row
    counts, ends = zip(*sizes, strict=True)
    kv_b = torch.randn(heads, nope + value, latent, generator=random) * latent**-0.5
    return Case(
        q_THQ=torch.randn(sum(counts), heads, nope + rotary, generator=random),
        cache=cache,
        rows=PagedRows.build(pages=pages, counts=counts, ends=ends, page_size=PAGE),
        heads=pack_latent_heads(kv_b, nope=nope, weight_format=weight_format),
        kv_b_HUL=kv_b,
        contexts=contexts,
    )


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("sizes", [[(1, 1)], [(1, 9)] * 3, [(7, 7)], [(5, 11), (1, 3), (2, 40)]])
@pytest.mark.parametrize("widths", WIDTHS)
def test_absorbed_equals_expanded(
    sizes: list[tuple[int, int]], widths: tuple[int, int, int, int, int]
) -> None:
    c = case(sizes, widths)
    parts = torch.split(c.q_THQ, [count for count, _ in sizes])
    expected = torch.cat(
        [
            reference.expanded_attention(q, context, c.kv_b_HUL, nope=widths[1], scale=SCALE)
            for q, context in zip(parts, c.contexts, strict=True)
        ]
    )
    for form in (reference.latent_decode_, cpu.latent_decode_):
        torch.testing.assert_close(c.run(form), expected, rtol=1e-4, atol=1e-5)


@natively()
@given(
    sizes=st.lists(
        st.tuples(st.sampled_from([1, 1, 1, 2, 5, 16]), st.sampled_from([16, 64, 65, 255, 256, 257, 600])),
        min_size=1,
        max_size=4,
    ),
    widths=st.sampled_from(WIDTHS),
    cache_dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    weight_format=st.sampled_from(["float32", "bfloat16", "int8", "int4"]),
)
def test_native_equals_the_definition(
    *,
    isa: str,
    rounds: Callable[..., bool],
    sizes: list[tuple[int, int]],
    widths: tuple[int, int, int, int, int],
    cache_dtype: torch.dtype,
    weight_format: WeightFormat,
) -> None:
    """The context lies around the borders of blocks (64) and chunks (256).

    Where weighted latents are rounded, the last bit may make a step of a 127th of it, or of bf16.
    """
    c = case(sizes, widths, cache_dtype=cache_dtype, weight_format=weight_format)
    torch.testing.assert_close(
        c.run(latent_decode_),
        c.run(reference.latent_decode_),
        rtol=1e-4,
        atol=1e-2 if rounds(weight_format) else 2e-5,
        msg=isa,
    )


@natively()
@given(
    sizes=st.lists(
        st.tuples(st.integers(1, 16), st.sampled_from([16, 70, 300, 520])), min_size=2, max_size=5
    ),
    widths=st.sampled_from(WIDTHS[1:]),
    weight_format=st.sampled_from(["bfloat16", "int8"]),
)
def test_a_token_is_the_same_bits_alone_in_any_batch_on_any_threads(
    isa: str,
    two_threads: None,
    sizes: list[tuple[int, int]],
    widths: tuple[int, int, int, int, int],
    weight_format: WeightFormat,
) -> None:
    c = case(sizes, widths, cache_dtype=torch.bfloat16, weight_format=weight_format)
    together = c.run(latent_decode_)
    torch.set_num_threads(1)
    assert c.run(latent_decode_).equal(together), isa
    torch.set_num_threads(2)
    first = 0
    for row, (count, end) in enumerate(sizes):
        for token in range(count):
            one = torch.ones(1, dtype=torch.int32)
            rows = PagedRows(c.rows.pages_BP[row : row + 1], one - 1, one, one * (end - count + 1 + token))
            q = c.q_THQ[first + token : first + token + 1]
            assert c.run(latent_decode_, rows, q)[0].equal(together[first + token]), isa
        first += count


@natively()
@given(
    start=st.sampled_from([0, 1, 60, 64, 100, 1000]),
    count=st.sampled_from([1, 6, 63, 64, 65, 150]),
    widths=st.sampled_from(WIDTHS),
    cache_dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    weight_format=st.sampled_from(["float32", "bfloat16", "int8"]),
)
def test_expanding_equals_the_definition(
    *,
    isa: str,
    rounds: Callable[..., bool],
    start: int,
    count: int,
    widths: tuple[int, int, int, int, int],
    cache_dtype: torch.dtype,
    weight_format: WeightFormat,
) -> None:
    """The context goes over one piece (1024)."""
    c = case([(count, start + count)], widths, cache_dtype=cache_dtype, weight_format=weight_format)
    expected = c.expand(reference.latent_expand_)
    coarse = weight_format == "bfloat16" and rounds(weight_format)
    atol = 1e-2 if coarse else 1e-4
    torch.testing.assert_close(c.expand(latent_expand_), expected, rtol=1e-4, atol=atol, msg=isa)
    if weight_format != "int8":
        torch.testing.assert_close(c.expand(cpu_expand.latent_expand_), expected, rtol=1e-4, atol=1e-4)


@natively()
@given(
    cut=st.sampled_from([1, 17, 64, 90]),
    widths=st.sampled_from(WIDTHS[1:]),
    end=st.sampled_from([100, 1100]),
)
def test_a_prompt_is_the_same_bits_wherever_it_is_cut_and_on_any_threads(
    isa: str, two_threads: None, cut: int, widths: tuple[int, int, int, int, int], end: int
) -> None:
    c = case([(end, end)], widths, cache_dtype=torch.bfloat16, weight_format="int8")
    whole = c.expand(latent_expand_)
    torch.set_num_threads(1)
    assert c.expand(latent_expand_).equal(whole), isa
    torch.set_num_threads(2)
    assert c.expand(latent_expand_, slice(0, cut)).equal(whole[:cut]), isa
    assert c.expand(latent_expand_, slice(cut, end)).equal(whole[cut:]), isa


@pytest.mark.parametrize(
    ("page", "start", "problem"), [(9999, 0, "pages outside"), (0, 900, "no pages"), (0, -1, "shapes")]
)
def test_expanding_from_outside_the_cache_is_refused(isa: str, page: int, start: int, problem: str) -> None:
    c = case([(20, 20)])
    pages = c.rows.pages_BP[0].clone()
    pages[0] = page
    with pytest.raises(RuntimeError, match=problem):
        latent_expand_(torch.empty(20, 3, 5), c.q_THQ, c.cache, pages, start, heads=c.heads, scale=SCALE), isa


def test_only_a_token_s_own_past_matters(isa: str) -> None:
    c = case([(3, 6), (3, 6)], cache_dtype=torch.float32)
    for form in (latent_decode_, cpu.latent_decode_, reference.latent_decode_):
        before = c.run(form)
        assert before.isfinite().all()  # what lies behind the end is NaN
        page = int(c.rows.pages_BP[0, 1])
        kept = c.cache[page, 1].clone()
        c.cache[page, 1] += 1  # position 5, the last token's own
        after = c.run(form)
        c.cache[page, 1] = kept
        changed = (after != before).flatten(1).any(1).tolist()
        assert changed == [False, False, True, False, False, False], isa


def test_a_query_that_is_no_number_stays_with_its_token(isa: str) -> None:
    c = case([(1, 300), (1, 9)])
    c.q_THQ[0] = float("nan")
    out = c.run(latent_decode_)
    assert out[0].isnan().all()
    assert out[1].isfinite().all(), isa


def test_absorbing_in_int8_is_near_and_in_bf16_nearer() -> None:
    exact = case([(1, 40)], WIDTHS[1]).run(reference.latent_decode_)
    errors = []
    for weight_format in ("int8", "bfloat16"):
        c = case([(1, 40)], WIDTHS[1], weight_format=weight_format)
        errors.append(float((c.run(reference.latent_decode_) - exact).abs().max()))
    assert 0.05 > errors[0] > errors[1] > 0


def test_matrices_that_do_not_belong_together_are_refused() -> None:
    kv_b, key = pack_matrix(torch.ones(22, 7), "float32"), pack_matrix(torch.ones(14, 6), "float32")
    assert LatentHeads(kv_b, key).value == 5
    for wrong in (torch.ones(15, 6), torch.ones(14, 11), torch.ones(28, 6)):
        with pytest.raises(ValueError, match="no part"):
            LatentHeads(kv_b, pack_matrix(wrong, "float32"))


def test_shapes_that_do_not_fit_are_refused(isa: str) -> None:
    c = case([(1, 5)])
    with pytest.raises(RuntimeError, match="latent_decode"):
        c.run(latent_decode_, q=torch.zeros(1, 3, 9)), isa


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("pages_BP", 200_000_000, "pages outside"),
        ("pages_BP", -1, "pages outside"),
        ("end_B", 900_000, "no pages"),
        ("end_B", 0, "no pages"),
        ("first_B", 100_000_000, "tokens outside"),
        ("first_B", -5, "tokens outside"),
        ("count_B", 2_000_000_000, "tokens outside"),
    ],
)
def test_places_outside_the_cache_are_refused(field: str, value: int, problem: str, isa: str) -> None:
    c = case([(1, 9), (2, 20)])
    wrong = getattr(c.rows, field).clone()
    wrong[1, ...] = value
    with pytest.raises(RuntimeError, match=problem):
        c.run(latent_decode_, replace(c.rows, **{field: wrong})), isa


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.tuples(st.integers(1, 5), st.integers(0, 60)), min_size=1, max_size=5),
    chunk=st.integers(1, 20),
)
def test_pairs_are_the_chunks_that_tokens_see_and_no_others(rows: list[tuple[int, int]], chunk: int) -> None:
    counts, ends = [count for count, _ in rows], [count + before for count, before in rows]
    pages = [list(range(-(-end // PAGE))) for end in ends]
    made = PagedRows.build(pages=pages, counts=counts, ends=ends, page_size=PAGE)
    pairs = made.to(torch.device("cpu")).pairs(PAGE, chunk)
    expected: list[tuple[int, int]] = []
    first: list[int] = []
    row_of: list[int] = []
    for row, (count, end) in enumerate(zip(counts, ends, strict=True)):
        for seen in range(end - count + 1, end + 1):
            row_of.append(row)
            first.append(len(expected))
            expected += [(len(first) - 1, number) for number in range(-(-seen // chunk))]
    assert list(zip(pairs.token_X.tolist(), pairs.chunk_X.tolist(), strict=True)) == expected
    assert (pairs.first_T.tolist(), pairs.row_T.tolist()) == (first, row_of)


def test_pairs_of_single_rows_are_the_same_for_any_contexts() -> None:
    pages_BP = torch.zeros(3, 4, dtype=torch.int32)
    short, long = (SingleRows.of(pages_BP, torch.full((3,), end, dtype=torch.int32)) for end in (1, 8))
    for one, other in zip(astuple(short.pairs(2, 3)), astuple(long.pairs(2, 3)), strict=True):
        assert one.tolist() == other.tolist()
    assert short.pairs(2, 3).chunk_X.tolist() == [0, 1, 2] * 3
    assert short.pairs(2, 3).first_T.tolist() == [0, 3, 6]
