"""Changes of many adapters in one call, against the definitions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_ops.grouped_mlp import PackedExperts, pack_experts, packed_mlp_
from moe_ops.linear import FORMATS
from moe_ops.lora import (
    ExpertNames,
    LoraBank,
    LoraBatch,
    Parts,
    cpu,
    lora_add_,
    lora_mlp_,
    pack_low_rank,
    reference,
)

pytestmark = pytest.mark.usefixtures("isa")
PER_TEST = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
Form = Callable[..., torch.Tensor]
RANKS = (1, 3, 8, 16, 17, 33)


@dataclass(frozen=True)
class Random:
    """Numbers of one seed; half of them bfloat16 ones, which banks keep as such."""

    generator: torch.Generator

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)

    def bank(self, modules: Iterable[tuple[str, int, int]], rank: int, *, halves: bool) -> LoraBank:
        changes = {}
        for name, outputs, inputs in modules:
            a, b = self.normal(rank, inputs) / inputs**0.5, self.normal(outputs, rank) / rank**0.5
            if halves:
                a, b = a.bfloat16().float(), b.bfloat16().float()
            changes[name] = pack_low_rank(a, b)
        return LoraBank(changes)


@dataclass(frozen=True)
class AddCase:
    x: torch.Tensor
    out: torch.Tensor
    bank_T: tuple[LoraBank | None, ...]
    parts: Parts

    def run(self, form: Form = lora_add_) -> torch.Tensor:
        out, batch = self.out.clone(), LoraBatch.build(self.bank_T)
        if batch is not None:
            assert form(out, self.x, batch=batch, parts=self.parts) is out
        return out

    def rows(self, chosen: list[int]) -> AddCase:
        return AddCase(
            self.x[chosen], self.out[chosen], tuple(self.bank_T[row] for row in chosen), self.parts
        )


@st.composite
def add_cases(draw: st.DrawFn) -> AddCase:
    random = Random(torch.Generator().manual_seed(draw(st.integers(0, 999))))
    inputs, tokens = draw(st.integers(1, 150)), draw(st.integers(1, 60))
    widths = draw(st.lists(st.sampled_from((1, 16, 40, 260, 1100)), min_size=1, max_size=3))
    starts = [sum(widths[:i]) for i in range(len(widths) + 1)]
    modules = [(f"m.{i}", width, inputs) for i, width in enumerate(widths)]
    banks = [
        random.bank(
            draw(st.lists(st.sampled_from(modules), unique=True)),
            draw(st.sampled_from(RANKS)),
            halves=draw(st.booleans()),
        )
        for _ in range(draw(st.integers(1, 4)))
    ]
    bank_T = draw(st.lists(st.sampled_from([None, *banks]), min_size=tokens, max_size=tokens))
    wide = starts[-1] + draw(st.integers(0, 3))
    return AddCase(
        random.normal(tokens, inputs),
        random.normal(tokens, wide),
        tuple(bank_T),
        tuple((name, start) for (name, _, _), start in zip(modules, starts, strict=False)),
    )


@dataclass(frozen=True)
class MlpCase:
    experts: PackedExperts
    names: ExpertNames
    x: torch.Tensor
    out: torch.Tensor
    weights: torch.Tensor
    chosen: torch.Tensor
    bank_T: tuple[LoraBank | None, ...]

    def rows(self, chosen: list[int]) -> MlpCase:
        return replace(
            self,
            x=self.x[chosen],
            out=self.out[chosen],
            weights=self.weights[chosen],
            chosen=self.chosen[chosen],
            bank_T=tuple(self.bank_T[row] for row in chosen),
        )

    def run(self, form: Form = lora_mlp_) -> torch.Tensor:
        batch = LoraBatch.build(self.bank_T)
        if batch is None:
            return self.plain()
        out = self.out.clone()
        given_back = form(
            out,
            self.x,
            experts=self.experts,
            weights_TK=self.weights,
            experts_TK=self.chosen,
            batch=batch,
            names=self.names,
        )
        assert given_back is out
        return out

    def plain(self) -> torch.Tensor:
        return packed_mlp_(
            self.out.clone(),
            self.x,
            experts=self.experts,
            weights_TK=self.weights,
            experts_TK=self.chosen,
            shared=self.names.shared,
        )


def modules_of(names: ExpertNames, *, width: int, hidden: int, experts: int) -> list[tuple[str, int, int]]:
    """Every projection of the stack with its (outputs, inputs)."""
    slices: dict[str, int] = {}
    for expert in range(experts):
        module, part = names.module(expert)
        slices[module] = part + 1
    return [
        (f"{module}.{side}_proj", *((hidden, count * width) if side == "down" else (count * width, hidden)))
        for module, count in slices.items()
        for side in ("gate", "up", "down")
    ]


@st.composite
def mlp_cases(draw: st.DrawFn) -> MlpCase:
    random = Random(torch.Generator().manual_seed(draw(st.integers(0, 999))))
    routed, shared = draw(st.sampled_from([(0, 1), (0, 2), (4, 0), (4, 1), (5, 2)]))
    tokens, top_k = draw(st.integers(1, 40)), draw(st.integers(1, 3)) if routed else 0
    hidden, width = draw(st.integers(1, 100)), draw(st.sampled_from((5, 16, 24, 48, 144, 200)))
    names, count = ExpertNames("l.mlp", routed, shared), routed + shared
    experts = pack_experts(
        random.normal(count, 2 * width, hidden) / hidden**0.5,
        random.normal(count, hidden, width) / width**0.5,
        draw(st.sampled_from(FORMATS)),
    )
    modules = modules_of(names, width=width, hidden=hidden, experts=count)
    banks = [
        random.bank(
            draw(st.lists(st.sampled_from(modules), unique=True)),
            draw(st.sampled_from(RANKS)),
            halves=draw(st.booleans()),
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    bank_T = draw(st.lists(st.sampled_from([None, *banks]), min_size=tokens, max_size=tokens))
    chosen = torch.rand(tokens, max(routed, 1), generator=random.generator).topk(min(top_k, routed)).indices
    return MlpCase(
        experts,
        names,
        random.normal(tokens, hidden),
        random.normal(tokens, hidden),
        torch.rand(tokens, min(top_k, routed), generator=random.generator),
        chosen,
        tuple(bank_T),
    )


@PER_TEST
@given(case=add_cases())
def test_adding_is_the_definition(case: AddCase) -> None:
    torch.testing.assert_close(case.run(), case.run(reference.lora_add_), rtol=1e-4, atol=1e-4)


@PER_TEST
@given(case=add_cases(), data=st.data())
def test_what_is_added_to_a_token_does_not_depend_on_the_others(case: AddCase, data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(case.x) - 1), min_size=1, max_size=9, unique=True))
    assert torch.equal(case.rows(rows).run(), case.run()[rows])


@PER_TEST
@given(case=mlp_cases())
def test_changed_experts_are_the_definition(rounds: Callable[..., bool], case: MlpCase) -> None:
    # an activation next to half a step of int8 may be rounded the other way
    loose = rounds(case.experts.format)
    found, wanted = case.run(), case.run(reference.lora_mlp_)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=0.1 if loose else 1e-3)
    assert (found - wanted).square().mean() <= (1e-4 if loose else 1e-9) * (1 + wanted.square().mean())


@PER_TEST
@given(case=mlp_cases(), data=st.data())
def test_a_token_under_changed_experts_does_not_depend_on_the_others(
    case: MlpCase, data: st.DataObject
) -> None:
    rows = data.draw(st.lists(st.integers(0, len(case.x) - 1), min_size=1, max_size=9, unique=True))
    assert torch.equal(case.rows(rows).run(), case.run()[rows])


@PER_TEST
@given(case=mlp_cases())
def test_tokens_without_changes_have_the_very_result_of_the_plain_operation(case: MlpCase) -> None:
    rows = [row for row, bank in enumerate(case.bank_T) if bank is None or not bank.modules]
    assert torch.equal(case.run()[rows], case.plain()[rows])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_show(threads: int) -> None:
    random = Random(torch.Generator().manual_seed(0))
    names = ExpertNames("l", 4, 2)
    modules = modules_of(names, width=144, hidden=96, experts=6)
    banks = [random.bank(modules, rank, halves=True) for rank in (3, 17)]
    experts = pack_experts(random.normal(6, 288, 96) / 10, random.normal(6, 96, 144) / 12, "int8")
    x, out, weights = random.normal(70, 96), random.normal(70, 96), torch.full((70, 2), 0.5)
    chosen = torch.rand(70, 4, generator=random.generator).topk(2).indices
    case = MlpCase(
        experts, names, x, out, weights, chosen, (banks[0], None, banks[1], banks[0], *[banks[1]] * 66)
    )
    added = AddCase(x, random.normal(70, 144), case.bank_T, (("l.experts.1.gate_proj", 0),))
    before = torch.get_num_threads()
    wanted = case.run(), added.run()
    try:
        torch.set_num_threads(threads)
        assert torch.equal(case.run(), wanted[0])
        assert torch.equal(added.run(), wanted[1])
    finally:
        torch.set_num_threads(before)


def test_plain_torch_is_the_definition_with_activations_as_they_are() -> None:
    random = Random(torch.Generator().manual_seed(0))
    names = ExpertNames("l", 0, 1)
    bank = random.bank(modules_of(names, width=24, hidden=40, experts=1), 4, halves=False)
    experts = pack_experts(random.normal(1, 48, 40) / 6, random.normal(1, 40, 24) / 5, "float32")
    nothing = torch.empty(5, 0), torch.empty(5, 0, dtype=torch.int64)
    case = MlpCase(
        experts, names, random.normal(5, 40), random.normal(5, 40), *nothing, (bank, None) * 2 + (bank,)
    )
    torch.testing.assert_close(case.run(cpu.lora_mlp_), case.run(), rtol=1e-4, atol=1e-4)


def test_changed_experts_must_fit_their_changes() -> None:
    random = Random(torch.Generator().manual_seed(0))
    names = ExpertNames("l", 0, 1)
    experts = pack_experts(random.normal(1, 32, 8), random.normal(1, 8, 16), "float32")
    nothing = torch.empty(2, 0), torch.empty(2, 0, dtype=torch.int64)
    for module, message in (
        (("l.gate_proj", 16, 9), "9 inputs meets 8"),
        (("l.down_proj", 9, 16), "9 outputs"),
    ):
        bank = random.bank([module], 2, halves=False)
        case = MlpCase(experts, names, random.normal(2, 8), random.normal(2, 8), *nothing, (bank, None))
        with pytest.raises(RuntimeError, match=message):
            case.run()
