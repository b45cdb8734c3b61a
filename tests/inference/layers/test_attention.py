"""Absorbed attention equals expanded attention, in one piece and in many."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from inference.engine import packing
from inference.layers.forms import NATIVE, REFERENCE, TORCH
from inference.models.loader import load_model
from moe_ops.latent_attention import cpu_expand, pack_latent_heads, reference

LogitsOf = Callable[..., list[torch.Tensor]]

PROMPT = [(5 * i) % 200 + 10 for i in range(90)]


def test_absorbed_equals_expanded(
    tiny_dir: Path, logits_of: LogitsOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(tiny_dir)
    expanded_logits = logits_of(model, [PROMPT])[0]
    monkeypatch.setattr(packing, "_FEW_TOKENS", 1000)
    absorbed_logits = logits_of(model, [PROMPT])[0]
    assert not absorbed_logits.equal(expanded_logits)  # two ways were taken
    torch.testing.assert_close(absorbed_logits, expanded_logits, rtol=0, atol=5e-5)


@pytest.mark.parametrize(("start", "count"), [(0, 1), (0, 37), (5, 20), (64, 64), (70, 3), (3, 100)])
@pytest.mark.parametrize("value", [5, 13])
@pytest.mark.parametrize("piece", [8, 16, 1024])
def test_pieces_equal_the_definition(
    start: int, count: int, value: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values narrower and wider than keys; unused places hold NaN."""
    monkeypatch.setattr(cpu_expand, "_PIECE", piece)
    heads, nope, latent, rotary, page = 3, 6, 8, 4, 4
    generator = torch.Generator().manual_seed(start + count)
    context = start + count
    pages = torch.randperm(-(-context // page) + 2, generator=generator)
    cache = torch.full((len(pages), page, latent + rotary), float("nan"))
    context_SC = torch.randn(context, latent + rotary, generator=generator)
    place = pages[torch.arange(context) // page] * page + torch.arange(context) % page
    cache.view(-1, latent + rotary)[place] = context_SC
    kv_b = torch.randn(heads, nope + value, latent, generator=generator)
    packed = pack_latent_heads(kv_b, nope=nope, weight_format="float32")
    pages_P = pages[: -(-context // page)].to(torch.int32)
    q = torch.randn(count, heads, nope + rotary, generator=generator)
    expected = reference.expanded_attention(q, context_SC, kv_b, nope=nope, scale=0.3)
    for forms in (TORCH, NATIVE, REFERENCE):
        found = torch.empty(count, heads, value)
        forms.latent_expand_(found, q, cache, pages_P, start, heads=packed, scale=0.3)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
