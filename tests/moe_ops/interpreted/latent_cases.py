"""Attention and the cache. Run by `test_triton.py` in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from moe_ops.latent_attention import PagedRows, pack_latent_heads
from moe_ops.latent_attention.pieces import attend_plain, expand_
from moe_ops.latent_attention.reference import latent_decode_ as expected_decode_
from moe_ops.latent_attention.reference import latent_expand_ as expected_expand_
from moe_ops.latent_attention.triton import latent_attention, latent_decode_
from moe_ops.latent_attention.triton_expand import attend as triton_attend
from moe_ops.latent_store.reference import latent_store_ as expected_store_
from moe_ops.latent_store.triton import latent_store_

PAGE = 5


def rows_of(ends: list[int], counts: list[int]) -> tuple[PagedRows, int]:
    """Rows on pages that jump about, and the number of pages."""
    needed = [-(-end // PAGE) for end in ends]
    free = torch.randperm(sum(needed) + 2).tolist()
    pages = [[free.pop() for _ in range(count)] for count in needed]
    return PagedRows.build(pages=pages, counts=counts, ends=ends, page_size=PAGE), sum(needed) + 2


@settings(max_examples=8, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    rows=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 3)), min_size=1, max_size=3),
    heads=st.sampled_from([1, 3, 17]),
    latent=st.sampled_from([8, 24]),
    bf16=st.booleans(),
    seed=st.integers(0, 99),
)
def test_decode_matches_the_reference(
    rows: list[tuple[int, int]], heads: int, latent: int, bf16: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    ends, counts = [max(end, count) for end, count in rows], [count for _, count in rows]
    paged, pages = rows_of(ends, counts)
    rotary, nope, value = 4, 6, 5
    cache_PZC = torch.randn(pages, PAGE, latent + rotary)
    if bf16:
        cache_PZC = cache_PZC.bfloat16()
    packed = pack_latent_heads(torch.randn(heads, nope + value, latent), nope=nope, weight_format="float32")
    q_THQ = torch.randn(sum(counts), heads, nope + rotary)
    found_THV, expected_THV = torch.empty(2, sum(counts), heads, value)
    latent_decode_(found_THV, q_THQ, cache_PZC, paged, heads=packed, scale=0.2)
    expected_decode_(expected_THV, q_THQ, cache_PZC, paged, heads=packed, scale=0.2)
    torch.testing.assert_close(found_THV, expected_THV, rtol=1e-4, atol=1e-4)


def test_any_chunks_give_the_same_and_other_rows_change_no_bit() -> None:
    torch.manual_seed(2)
    paged, pages = rows_of([290, 7], [1, 2])
    cache_PZC, q_THC = torch.randn(pages, PAGE, 12), torch.randn(3, 2, 12)
    whole = latent_attention(q_THC, cache_PZC, paged, latent=8, scale=0.3)
    chunked = latent_attention(q_THC, cache_PZC, paged, latent=8, scale=0.3, chunk=128)
    torch.testing.assert_close(chunked, whole, rtol=1e-5, atol=1e-6)
    alone = PagedRows(paged.pages_BP[1:, :2], paged.first_B[:1], paged.count_B[1:], paged.end_B[1:])
    assert latent_attention(q_THC[1:], cache_PZC, alone, latent=8, scale=0.3, chunk=128).equal(chunked[1:])


def test_what_is_behind_the_end_does_not_matter_even_if_it_is_no_number() -> None:
    torch.manual_seed(1)
    paged, pages = rows_of([7], [2])
    cache_PZC, q_THC = torch.randn(pages, PAGE, 12), torch.randn(2, 3, 12)
    before = latent_attention(q_THC, cache_PZC, paged, latent=8, scale=0.3)
    cache_PZC[paged.pages_BP[0, 1].long(), 2:] = float("nan")
    assert latent_attention(q_THC, cache_PZC, paged, latent=8, scale=0.3).equal(before)
    cache_PZC[paged.pages_BP[0, 1].long(), 1] += 1
    after = latent_attention(q_THC, cache_PZC, paged, latent=8, scale=0.3)
    assert after[0].equal(before[0])
    assert not after[1].equal(before[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("tokens", "heads", "latent", "rotary"), [(1, 1, 8, 2), (4, 17, 24, 6)])
def test_store_matches_the_reference(
    tokens: int, heads: int, latent: int, rotary: int, dtype: torch.dtype
) -> None:
    torch.manual_seed(4)
    inner = torch.randn(tokens, 5 + latent + rotary)
    turn = torch.polar(torch.ones(tokens, rotary // 2), torch.rand(tokens, rotary // 2) * 6)
    slot_T = torch.randperm(3 * PAGE)[:tokens]
    norm_L = torch.randn(latent)
    found, expected = (
        (torch.zeros(3, PAGE, latent + rotary, dtype=dtype), q)
        for q in torch.randn(1, tokens, heads, 6 + rotary).expand(2, -1, -1, -1).clone()
    )
    for store_, (cache, q) in ((latent_store_, found), (expected_store_, expected)):
        store_(inner[:, 5:], norm_L, 1e-6, turn_TR=turn, slot_T=slot_T, cache_PZC=cache, q_THQ=q)
    tolerance = 2**-6 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(found[0], expected[0], rtol=tolerance, atol=1e-6)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-5, atol=1e-6)


@settings(max_examples=8, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    tokens=st.integers(1, 90),
    start=st.integers(0, 120),
    heads=st.sampled_from([1, 3]),
    piece=st.sampled_from([32, 64, 4096]),
    seed=st.integers(0, 99),
)
def test_expanded_matches_the_reference(tokens: int, start: int, heads: int, piece: int, seed: int) -> None:
    torch.manual_seed(seed)
    end, latent, rotary, nope, value = start + tokens, 8, 4, 6, 5
    pages_P = torch.randperm(-(-end // PAGE) + 2)[: -(-end // PAGE)].int()
    cache_PZC = torch.randn(len(pages_P) + 2, PAGE, latent + rotary)
    packed = pack_latent_heads(torch.randn(heads, nope + value, latent), nope=nope, weight_format="float32")
    q_THQ = torch.randn(tokens, heads, nope + rotary)
    expected_THV = torch.empty(tokens, heads, value)
    expected_expand_(expected_THV, q_THQ, cache_PZC, pages_P, start, heads=packed, scale=0.3)
    for attend in (triton_attend, attend_plain):
        found_THV = torch.empty(tokens, heads, value)
        where = found_THV, q_THQ, cache_PZC, pages_P, start
        expand_(*where, heads=packed, scale=0.3, attend=attend, piece=piece)
        torch.testing.assert_close(found_THV, expected_THV, rtol=1e-4, atol=1e-4)
