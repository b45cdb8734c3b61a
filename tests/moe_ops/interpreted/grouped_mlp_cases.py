"""Run by `test_triton.py` in Triton's interpreter."""

from __future__ import annotations

import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from moe_ops.accelerator.groups import rows_per_block, sort_pairs
from moe_ops.grouped_mlp.dense import DenseExperts
from moe_ops.grouped_mlp.reference import grouped_mlp_ as expected_mlp_
from moe_ops.grouped_mlp.triton import grouped_mlp_

BLOCK = 128


@settings(max_examples=8, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    tokens=st.integers(0, 20),
    hidden=st.integers(1, 40),
    width=st.integers(1, 40),
    experts=st.integers(2, 5),
    top_k=st.integers(1, 2),
    shared=st.integers(0, 1),
    seed=st.integers(0, 99),
)
def test_matches_the_reference(
    *, tokens: int, hidden: int, width: int, experts: int, top_k: int, shared: int, seed: int
) -> None:
    torch.manual_seed(seed)
    gate_up_EJD, down_EDI = torch.randn(experts, 2 * width, hidden), torch.randn(experts, hidden, width)
    x_TD, base_TD = torch.randn(2, tokens, hidden)
    weights_TK = torch.rand(tokens, top_k)
    experts_TK = torch.rand(tokens, experts).topk(top_k).indices
    found_TD = grouped_mlp_(
        base_TD.clone(), x_TD, experts=DenseExperts(gate_up_EJD, down_EDI),
        weights_TK=weights_TK, experts_TK=experts_TK, shared=shared,
    )  # fmt: skip
    if shared:
        experts_TK = torch.cat([experts_TK, torch.full((tokens, 1), experts - 1)], dim=1)
        weights_TK = torch.cat([weights_TK, torch.ones(tokens, 1)], dim=1)
    expected_TD = reference(
        base_TD, x_TD, gate_up_EJD, down_EDI, weights_TK=weights_TK, experts_TK=experts_TK
    )
    torch.testing.assert_close(found_TD, expected_TD, rtol=1e-4, atol=1e-4 * width)


def reference(
    base_TD: torch.Tensor, x_TD: torch.Tensor, gate_up_EJD: torch.Tensor, down_EDI: torch.Tensor, *,
    weights_TK: torch.Tensor, experts_TK: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    return expected_mlp_(
        base_TD.clone(), x_TD, gate_up_EDJ=gate_up_EJD.transpose(1, 2), down_EID=down_EDI.transpose(1, 2),
        weights_TK=weights_TK, experts_TK=experts_TK,
    )  # fmt: skip


def test_fp8_blocks_count_ceil_divided() -> None:
    torch.manual_seed(0)
    experts, hidden, width = 2, 160, 136  # more than one block, and a piece
    gate_up = (torch.randn(experts, 2 * width, hidden) * 8).to(torch.float8_e4m3fn)
    down = (torch.randn(experts, hidden, width) * 8).to(torch.float8_e4m3fn)
    gate_up_scale, down_scale = torch.rand(experts, 2, 2, 2) / 50, torch.rand(experts, 2, 2) / 50
    x_TD, weights_TK = torch.randn(3, hidden), torch.rand(3, 1)
    experts_TK = torch.tensor([[1], [0], [1]])
    found_TD = grouped_mlp_(
        torch.zeros(3, hidden), x_TD, experts=DenseExperts(gate_up, down, gate_up_scale, down_scale),
        weights_TK=weights_TK, experts_TK=experts_TK,
    )  # fmt: skip
    halves = gate_up.float().view(experts, 2, width, hidden)
    expected_TD = reference(
        torch.zeros(3, hidden), x_TD, (halves * spread(gate_up_scale, width, hidden)).flatten(1, 2),
        down.float() * spread(down_scale, hidden, width), weights_TK=weights_TK, experts_TK=experts_TK,
    )  # fmt: skip
    torch.testing.assert_close(found_TD, expected_TD, rtol=1e-4, atol=1e-3)


def spread(scale: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    return scale.repeat_interleave(BLOCK, -2).repeat_interleave(BLOCK, -1)[..., :rows, :columns]


def test_experts_of_other_devices_add_nothing() -> None:
    torch.manual_seed(0)
    gate_up_EJD, down_EDI, x_TD = torch.randn(2, 8, 6), torch.randn(2, 6, 4), torch.randn(2, 6)
    experts_TK = torch.tensor([[-1, 1], [2, 7]])
    found_TD = grouped_mlp_(
        torch.zeros(2, 6), x_TD, experts=DenseExperts(gate_up_EJD, down_EDI),
        weights_TK=torch.ones(2, 2), experts_TK=experts_TK,
    )  # fmt: skip
    alone_TD = reference(
        torch.zeros(1, 6),
        x_TD[:1],
        gate_up_EJD,
        down_EDI,
        weights_TK=torch.ones(1, 1),
        experts_TK=torch.tensor([[1]]),
    )
    torch.testing.assert_close(found_TD[:1], alone_TD, rtol=1e-4, atol=1e-5)
    assert found_TD[1].eq(0).all()


@settings(max_examples=50, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    tokens=st.integers(1, 40), top_k=st.integers(1, 4), experts=st.integers(1, 12), seed=st.integers(0, 999)
)
def test_every_own_pair_has_one_place_in_a_block_of_its_expert(
    tokens: int, top_k: int, experts: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    experts_TK = torch.randint(-2, experts + 3, (tokens, top_k), generator=generator)
    rows = rows_per_block(tokens * top_k, experts)
    blocks = sort_pairs(experts_TK, experts=experts, rows=rows)
    seen = []
    for block, expert in zip(blocks.order_X.split(rows), blocks.expert_B.tolist(), strict=True):
        pairs = [pair for pair in block.tolist() if pair < tokens * top_k]
        assert not pairs or all(int(experts_TK.flatten()[pair]) == expert for pair in pairs)
        seen += pairs
    own = [m for m, expert in enumerate(experts_TK.flatten().tolist()) if 0 <= expert < experts]
    assert sorted(seen) == own
