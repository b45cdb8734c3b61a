from __future__ import annotations

import pytest
import torch

from moe_ops.grouped_mlp import grouped_mlp_, reference

Weights = tuple[torch.Tensor, torch.Tensor]


def make(hidden: int, width: int, experts: int = 6) -> Weights:
    torch.manual_seed(1)
    return torch.randn(experts, hidden, 2 * width) / 4, torch.randn(experts, width, hidden) / 4


def naive(x: torch.Tensor, weights: Weights, gate: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Token by token, expert by expert, in double."""
    gate_up, down = (w.double() for w in weights)
    out = torch.zeros(x.shape, dtype=torch.float64)
    for t in range(x.shape[0]):
        for k in range(chosen.shape[1]):
            e = int(chosen[t, k])
            g, u = (x[t].double() @ gate_up[e]).chunk(2)
            out[t] += gate[t, k].double() * ((g * torch.sigmoid(g) * u) @ down[e])
    return out


# 12 and 6 are widths that the grouped product cannot take.
@pytest.mark.parametrize(("hidden", "width"), [(16, 8), (32, 20), (12, 6), (16, 6)])
@pytest.mark.parametrize("tokens", [1, 3, 40])
def test_matches_the_formula_and_adds(hidden: int, width: int, tokens: int) -> None:
    weights = make(hidden, width)
    x, base = torch.randn(tokens, hidden), torch.randn(tokens, hidden)
    gate = torch.rand(tokens, 2)
    chosen = torch.rand(tokens, 6).topk(2).indices
    expected = base.double() + naive(x, weights, gate, chosen)
    for form in (grouped_mlp_, reference.grouped_mlp_):
        out = base.clone()
        given = form(
            out,
            x,
            gate_up_EDJ=weights[0],
            down_EID=weights[1],
            weights_TK=gate,
            experts_TK=chosen,
        )
        assert given is out
        torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)


def test_all_tokens_on_one_expert() -> None:
    weights = make(16, 8)
    x, gate, chosen = torch.randn(9, 16), torch.ones(9, 1), torch.full((9, 1), 5)
    out = grouped_mlp_(
        torch.zeros(9, 16),
        x,
        gate_up_EDJ=weights[0],
        down_EID=weights[1],
        weights_TK=gate,
        experts_TK=chosen,
    )
    torch.testing.assert_close(out.double(), naive(x, weights, gate, chosen), rtol=1e-4, atol=1e-5)
