from __future__ import annotations

import pytest
import torch

from moe_ops.latent_attention import latent_attention, reference

HEADS, NOPE, VALUE, LATENT, ROTARY, PAGE = 3, 6, 5, 8, 4, 4
SCALE = 0.21


def case(batch: int, new: int, context: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A cache, page tables that share no page and jump about, and a causal mask."""
    torch.manual_seed(batch * 100 + new)
    columns = -(-context // PAGE)
    pages = torch.randperm(batch * columns + 2)[: batch * columns].view(batch, columns)
    cache = torch.randn(batch * columns + 2, PAGE, LATENT + ROTARY)
    position = torch.arange(context - new, context)[:, None]
    hidden = torch.arange(columns * PAGE) > position
    mask = torch.zeros(new, columns * PAGE).masked_fill(hidden, float("-inf")).expand(batch, -1, -1)
    return cache, pages, mask


@pytest.mark.parametrize(("batch", "new", "context"), [(1, 1, 1), (3, 1, 9), (1, 7, 7), (2, 5, 11)])
def test_absorbed_equals_expanded(batch: int, new: int, context: int) -> None:
    cache, pages, mask = case(batch, new, context)
    kv_b = torch.randn(HEADS, NOPE + VALUE, LATENT)
    q = torch.randn(batch, new, HEADS, NOPE + ROTARY)
    expected = reference.expanded_attention(
        q, cache[pages].flatten(1, 2), kv_b, mask, value=VALUE, scale=SCALE
    )
    absorbed = torch.einsum("bnhk,hkl->bnhl", q[..., :NOPE], kv_b[:, :NOPE])
    q_latent = torch.cat([absorbed, q[..., NOPE:]], dim=-1)
    for form in (latent_attention, reference.latent_attention):
        latents = form(q_latent, cache, pages, mask, latent=LATENT, scale=SCALE)
        values = torch.einsum("bnhl,hvl->bnhv", latents, kv_b[:, NOPE:])
        torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)


def test_what_is_masked_does_not_matter() -> None:
    cache, pages, mask = case(2, 3, 6)
    q = torch.randn(2, 3, HEADS, LATENT + ROTARY)
    before = latent_attention(q, cache, pages, mask, latent=LATENT, scale=SCALE)
    changed = cache.clone()
    changed[pages[:, 1], 2:] = 1e4  # positions 6 and 7, behind the end
    assert latent_attention(q, changed, pages, mask, latent=LATENT, scale=SCALE).equal(before)
    changed[pages[0, 0], 0] += 1
    after = latent_attention(q, changed, pages, mask, latent=LATENT, scale=SCALE)
    assert not after[0].equal(before[0])
    assert after[1].equal(before[1])
