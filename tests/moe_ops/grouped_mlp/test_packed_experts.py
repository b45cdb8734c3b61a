from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_ops.grouped_mlp import (
    PackedExperts,
    pack_experts,
    packed_mlp_,
    split_mlp,
    stack_experts,
    unpack_experts,
)
from moe_ops.grouped_mlp.packed import packed_mlp_reference_, packed_mlp_torch_
from moe_ops.linear import FORMATS, Activations, WeightFormat

pytestmark = pytest.mark.usefixtures("isa")


@dataclass(frozen=True)
class Case:
    experts: PackedExperts
    x: torch.Tensor
    out: torch.Tensor
    weights: torch.Tensor
    chosen: torch.Tensor
    shared: int

    def run(self, form: Callable[..., torch.Tensor] = packed_mlp_, rows: slice = slice(None)) -> torch.Tensor:
        out = self.out[rows].clone()
        given_back = form(
            out,
            self.x[rows],
            experts=self.experts,
            weights_TK=self.weights[rows],
            experts_TK=self.chosen[rows],
            shared=self.shared,
        )
        assert given_back is out
        return out


@st.composite
def cases(draw: st.DrawFn) -> Case:
    routed, shared = draw(st.integers(0, 5)), draw(st.integers(0, 2))
    routed = max(routed, 1 - min(shared, 1))
    tokens, top_k = draw(st.integers(1, 40)), draw(st.integers(0, min(routed, 3)))
    hidden, width = draw(st.integers(1, 150)), draw(st.integers(1, 290))
    random = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    count = routed + shared
    experts = pack_experts(
        torch.randn(count, 2 * width, hidden, generator=random) / hidden**0.5,
        torch.randn(count, hidden, width, generator=random) / width**0.5,
        draw(st.sampled_from(FORMATS)),
        activations=draw(st.sampled_from(("int8", "float"))),
    )
    chosen = torch.rand(tokens, routed, generator=random).topk(top_k).indices if routed else None
    return Case(
        experts,
        torch.randn(tokens, hidden, generator=random),
        torch.randn(tokens, hidden, generator=random),
        torch.rand(tokens, top_k, generator=random),
        torch.empty(tokens, 0, dtype=torch.int64) if chosen is None else chosen,
        shared,
    )


PER_TEST = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@PER_TEST
@given(case=cases())
def test_is_the_definition(rounds: Callable[..., bool], case: Case) -> None:
    tolerance = 1e-4
    if rounds(case.experts.format, case.experts.gate_up.activations):
        # an activation that lies between two codes may go either way: one step of 1/127 of a group's largest;
        # for bf16 weights the definition rounds none
        tolerance = 6e-2 if case.experts.format == "bfloat16" else 2e-2
    torch.testing.assert_close(case.run(), case.run(packed_mlp_reference_), rtol=0, atol=tolerance)


@PER_TEST
@given(case=cases())
def test_a_token_comes_out_the_same_alone_and_on_any_number_of_threads(case: Case) -> None:
    together = case.run()
    alone = [case.run(rows=slice(t, t + 1)) for t in range(len(case.x))]
    assert torch.equal(together, torch.cat(alone))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert torch.equal(together, case.run())
    finally:
        torch.set_num_threads(before)


def simple(tokens: int, *, weight_format: WeightFormat = "int8", activations: Activations = "int8") -> Case:
    random = torch.Generator().manual_seed(5)
    experts = pack_experts(
        torch.randn(6, 80, 64, generator=random) / 8,
        torch.randn(6, 64, 40, generator=random) / 6,
        weight_format,
        activations=activations,
    )
    chosen = torch.rand(tokens, 5, generator=random).topk(2).indices
    x = torch.randn(tokens, 64, generator=random)
    return Case(experts, x, torch.zeros_like(x), torch.rand(tokens, 2, generator=random), chosen, 1)


@pytest.mark.parametrize("weight_format", FORMATS)
def test_the_torch_form_agrees(weight_format: WeightFormat) -> None:
    case = simple(9, weight_format=weight_format, activations="float")
    torch.testing.assert_close(case.run(), case.run(packed_mlp_torch_), rtol=1e-4, atol=1e-4)


def test_experts_nobody_chose_are_not_read() -> None:
    case = simple(4)
    case = replace(case, chosen=case.chosen.clamp(max=1))
    scales = case.experts.down.scales.view(6, -1)
    expected = case.run()
    scales[2:5] = float("nan")
    assert torch.equal(case.run(), expected)
    scales[0] = float("nan")
    assert case.run().isnan().any()


def test_a_wide_mlp_is_the_sum_of_its_parts() -> None:
    gate, up, down = torch.randn(96, 30), torch.randn(96, 30), torch.randn(30, 96)
    x = torch.randn(3, 30)
    nobody = {"weights_TK": torch.empty(3, 0), "experts_TK": torch.empty(3, 0, dtype=torch.int64)}
    expected = (torch.nn.functional.silu(x @ gate.t()) * (x @ up.t())) @ down.t()
    for count in (1, 3):
        experts = pack_experts(*split_mlp(gate, up, down, count), "float32")
        out = packed_mlp_(torch.zeros(3, 30), x, experts=experts, shared=count, **nobody)
        torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-3)


def test_packing_keeps_every_weight_and_stacking_the_order() -> None:
    gate_up, down = torch.randn(3, 40, 21), torch.randn(3, 21, 20)
    whole = pack_experts(gate_up, down, "float32")
    for experts in (
        whole,
        stack_experts([pack_experts(gate_up[i : i + 1], down[i : i + 1], "float32") for i in range(3)]),
    ):
        assert torch.equal(unpack_experts(experts)[0], gate_up)
        assert torch.equal(unpack_experts(experts)[1], down)
    with pytest.raises(ValueError, match="does not fit"):
        pack_experts(gate_up, down[:2], "float32")
    with pytest.raises(ValueError, match="gate_up of 4 experts"):
        PackedExperts(4, 21, 20, whole.gate_up, whole.down)


def test_misuse_is_named() -> None:
    case = simple(3)
    for wrong, message in (
        (replace(case, chosen=torch.full((3, 2), 6)), "expert 6 of 6"),
        (replace(case, chosen=torch.full((3, 2), -1)), "expert -1 of 6"),
        (replace(case, chosen=case.chosen.int()), "must be contiguous int64"),
        (replace(case, weights=case.weights[:, :1]), "weights must be contiguous float32"),
        (replace(case, shared=7), "7 of them shared"),
        (replace(case, out=torch.zeros(3, 65)), "out must have shape"),
        (replace(case, out=torch.zeros(2, 64)), "out has 2 rows"),
    ):
        with pytest.raises(RuntimeError, match=message):
            wrong.run()
