"""What is asked of `torch_npu`, with a stand-in that has the signatures its documentation records.

This shows that arguments mean what the operations say they mean, and nothing about any NPU.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as fn

from inference.engine.loading import engine_load
from inference.engine.types import EngineConfig, GenerationRequest, SamplingParams
from inference.layers import npu
from inference.layers.placement import Device, Placement
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write
from moe_ops.grouped_mlp import npu as grouped_npu
from moe_ops.grouped_mlp import reference as grouped_reference
from moe_ops.latent_store import npu as store_npu
from moe_ops.latent_store import reference as store_reference
from moe_ops.rms_norm import npu as norm_npu
from moe_ops.rms_norm import reference as norm_reference
from moe_ops.router import RouterSpec
from moe_ops.router import npu as router_npu
from moe_ops.router import reference as router_reference

Pair = tuple[torch.Tensor, torch.Tensor]
Tensors = list[torch.Tensor]


class Recorded(ModuleType):
    """Signatures and meanings as documented for `torch_npu`, in plain torch."""

    def npu_rms_norm(self, x: torch.Tensor, gamma: torch.Tensor, epsilon: float = 1e-6) -> Pair:
        assert gamma.dtype == x.dtype
        assert x.is_contiguous()
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon)
        return x * scale * gamma, scale

    def npu_swiglu(self, x: torch.Tensor, dim: int = -1) -> torch.Tensor:
        a, b = x.chunk(2, dim)
        return fn.silu(a) * b

    def npu_rotary_mul(
        self, x: torch.Tensor, r1: torch.Tensor, r2: torch.Tensor, rotary_mode: str = "half"
    ) -> torch.Tensor:
        assert rotary_mode == "interleave"
        assert x.dim() == r1.dim() == 4
        turned = torch.stack([-x[..., 1::2], x[..., 0::2]], dim=-1).flatten(-2)
        return x * r1 + turned * r2

    def npu_grouped_matmul(
        self, x: Tensors, weight: Tensors, *, bias: None = None, group_list: torch.Tensor | None = None,
        split_item: int = 0, group_type: int = -1, group_list_type: int = 0,
    ) -> Tensors:  # fmt: skip
        assert (split_item, group_type, group_list_type) == (3, 0, 1)
        assert group_list is not None
        assert group_list.dtype == torch.int64
        rows, out = 0, x[0].new_full((len(x[0]), weight[0].shape[2]), float("nan"))
        for expert, count in enumerate(group_list.tolist()):
            out[rows : rows + count] = x[0][rows : rows + count] @ weight[0][expert]
            rows += count
        return [out]

    def npu_moe_gating_top_k(
        self, x: torch.Tensor, k: int, *, bias: torch.Tensor | None = None, k_group: int = 1,
        group_count: int = 1, group_select_mode: int = 0, renorm: int = 0, norm_type: int = 0,
        out_flag: bool = False, routed_scaling_factor: float = 1.0, eps: float = 1e-20,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
        assert (renorm, out_flag) == (0, False)
        scores = x.sigmoid() if norm_type else x.softmax(-1)
        choice = scores if bias is None else scores + bias
        grouped = choice.view(len(x), group_count, -1)
        rank = grouped.topk(2, dim=-1).values.sum(-1) if group_select_mode else grouped.amax(-1)
        kept = torch.zeros_like(rank).scatter_(1, rank.topk(k_group, dim=-1).indices, 1.0)
        choice = grouped.masked_fill(kept.unsqueeze(2) == 0, float("-inf")).flatten(1)
        chosen = choice.topk(k, dim=-1).indices
        weights = scores.gather(1, chosen) * routed_scaling_factor
        return weights, chosen.int(), scores


@pytest.fixture
def _recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_npu", Recorded("torch_npu"))
    torch.manual_seed(0)


def test_without_torch_npu_the_error_says_so() -> None:
    with pytest.raises(RuntimeError, match="torch_npu is not installed"):
        norm_npu.rms_norm(torch.ones(1, 2), torch.ones(2), 1e-6)


@pytest.mark.usefixtures("_recorded")
def test_norm() -> None:
    x, weight = torch.randn(3, 8), torch.randn(8)
    torch.testing.assert_close(norm_npu.rms_norm(x, weight, 0.1), norm_reference.rms_norm(x, weight, 0.1))


@pytest.mark.usefixtures("_recorded")
@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_router(scoring: str, biased: bool, normalize: bool) -> None:
    spec = RouterSpec(3, 4, 2, "sigmoid" if scoring == "sigmoid" else "softmax", normalize, 2.5)
    x, weight = torch.randn(7, 8), torch.randn(16, 8)
    bias = torch.randn(16) if biased else None
    found, expected = (form.route(x, weight, bias, spec) for form in (router_npu, router_reference))
    (order, other) = (pair[1].argsort(1) for pair in (found, expected))
    assert found[1].gather(1, order).equal(expected[1].gather(1, other))
    torch.testing.assert_close(found[0].gather(1, order), expected[0].gather(1, other))


@pytest.mark.usefixtures("_recorded")
def test_grouped_mlp_with_experts_of_other_devices() -> None:
    gate_up, down, x = torch.randn(4, 8, 12), torch.randn(4, 6, 8), torch.randn(5, 8)
    weights, experts = torch.rand(5, 2), torch.rand(5, 4).topk(2).indices
    found, expected = (
        form.grouped_mlp_(
            torch.ones(5, 8), x, gate_up_EDJ=gate_up, down_EID=down, weights_TK=weights, experts_TK=experts
        )
        for form in (grouped_npu, grouped_reference)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    elsewhere = torch.where(experts == 2, 9, experts)
    found = grouped_npu.grouped_mlp_(
        torch.ones(5, 8), x, gate_up_EDJ=gate_up, down_EID=down, weights_TK=weights, experts_TK=elsewhere
    )
    without = grouped_reference.grouped_mlp_(
        torch.ones(5, 8), x, gate_up_EDJ=gate_up, down_EID=down,
        weights_TK=weights * (experts != 2), experts_TK=experts,
    )  # fmt: skip
    torch.testing.assert_close(found, without, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("_recorded")
def test_latent_store() -> None:
    fresh, norm = torch.randn(4, 8 + 6), torch.randn(8)
    turn = torch.polar(torch.ones(4, 3), torch.rand(4, 3) * 6)
    slots = torch.tensor([3, 0, 5, 1])
    caches, queries = torch.zeros(2, 2, 3, 14), torch.randn(1, 4, 2, 11).expand(2, -1, -1, -1).clone()
    for form, cache, q in zip((store_npu, store_reference), caches, queries, strict=True):
        form.latent_store_(fresh, norm, 1e-6, turn_TR=turn, slot_T=slots, cache_PZC=cache, q_THQ=q)
    torch.testing.assert_close(caches[0], caches[1])
    torch.testing.assert_close(queries[0], queries[1])


@pytest.mark.usefixtures("_recorded")
def test_an_engine_answers_as_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is around the operations: batches, weights and logits move, prompts are long and short."""
    random_checkpoint_write(path=tmp_path, config=TINY_V3)
    monkeypatch.setattr(npu, "placement", lambda: Placement(torch.device("cpu"), npu.NPU))
    asked = [(tuple(range(20, 20 + length)), f"r{length}") for length in (3, 30, 200)]
    answers = []
    devices: tuple[Device, ...] = "npu", "cpu"
    for device in devices:
        engine = engine_load(tmp_path, EngineConfig(page_size=8, pages=64, device=device)).engine
        for prompt, name in asked:
            params = SamplingParams(max_tokens=6, temperature=0, ignore_eos=True)
            engine.submit(GenerationRequest(name, prompt, params))
        tokens: dict[str, tuple[int, ...]] = {}
        while engine.has_work:
            for event in engine.step():
                tokens[event.request_id] = tokens.get(event.request_id, ()) + event.token_ids
        answers.append(tokens)
    assert answers[0] == answers[1]
    assert [len(tokens) for tokens in answers[0].values()] == [6, 6, 6]
