"""A decoder in one call of the C++ kernels gives the bits of its operations one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.layers.batch import FlatBatch, LongRow
from inference.models.interface import CausalModel, Forward
from inference.models.loader import load_model
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write
from inference.routing.observer import LayerChoice
from moe_ops import native
from moe_ops.decoder import NativeDecoder
from moe_ops.latent_attention import PagedRows
from moe_ops.linear import FORMATS, WeightFormat

pytestmark = pytest.mark.skipif(not native.available(), reason="the C++ kernels are not compiled")
PAGE_SIZE = 4
ROUTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"scoring_func": "softmax", "topk_method": "greedy", "norm_topk_prob": False},
    {"scoring_func": "softmax", "topk_method": "group_limited_greedy", "n_group": 2, "topk_group": 1},
)


class Watcher:
    """Is shown each choice of experts, for which operations must be called one by one."""

    def __init__(self) -> None:
        self.seen = 0

    def see(self, choice: LayerChoice) -> None:
        del choice
        self.seen += 1


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of tokens with every whole pass."""
    found: list[int] = []
    whole = NativeDecoder.forward

    def counted(
        self: NativeDecoder, token_T: torch.Tensor, **batch: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        found.append(len(token_T))
        return whole(self, token_T, **batch)

    monkeypatch.setattr(NativeDecoder, "forward", counted)
    return found


def batch_of(model: CausalModel, rows: list[tuple[int, int]], pages: list[list[int]]) -> FlatBatch:
    """New tokens and context length of each row."""
    counts, ends = [new for new, _ in rows], [end for _, end in rows]
    position_T = torch.tensor([at for new, end in rows for at in range(end - new, end)])
    slots = [
        pages[row][at // PAGE_SIZE] * PAGE_SIZE + at % PAGE_SIZE
        for row, (new, end) in enumerate(rows)
        for at in range(end - new, end)
    ]
    tokens = len(position_T)
    return FlatBatch(
        token_T=torch.arange(tokens) * 31 % model.config.vocab_size,
        turn_TR=model.turn_XR[position_T],
        slot_T=torch.tensor(slots),
        short=PagedRows.build(pages=pages, counts=counts, ends=ends, page_size=PAGE_SIZE),
        long=(),
        last_S=torch.arange(0, tokens, 2),
    )


def pages_of(rows: list[tuple[int, int]]) -> tuple[list[list[int]], int]:
    """Pages for each row, the last first, and how many there are."""
    needed = [-(-end // PAGE_SIZE) for _, end in rows]
    free = iter(range(sum(needed) - 1, -1, -1))
    return [[next(free) for _ in range(count)] for count in needed], sum(needed)


@torch.inference_mode()
def both_ways(
    model: CausalModel, rows: list[tuple[int, int]], threads: int
) -> tuple[tuple[Forward, torch.Tensor], tuple[Forward, torch.Tensor]]:
    """The results and caches of a whole pass, and of one of single operations."""
    pages, count = pages_of(rows)
    batch, watcher = batch_of(model, rows, pages), Watcher()
    cache = model.new_cache(pages=count, page_size=PAGE_SIZE)
    cache.copy_(torch.randn(cache.shape, generator=torch.Generator().manual_seed(len(rows))))
    other = cache.clone()
    torch.set_num_threads(1)
    expected = model.forward(dataclasses.replace(batch, observer=watcher), other)
    assert watcher.seen
    torch.set_num_threads(threads)
    return (model.forward(batch, cache), cache), (expected, other)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, and the new tokens and context lengths of a batch's rows."""

    config: dict[str, Any]
    weights: WeightFormat
    mtp: bool
    rows: list[tuple[int, int]]
    threads: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    config = {
        **TINY_V3,
        **draw(st.sampled_from(ROUTINGS)),
        "q_lora_rank": draw(st.sampled_from([None, 24, 32])),
        "num_hidden_layers": draw(st.integers(2, 3)),
        "first_k_dense_replace": draw(st.integers(0, 1)),
        "n_shared_experts": draw(st.integers(0, 2)),
        "hidden_size": draw(st.sampled_from([64, 88])),
        "qk_rope_head_dim": draw(st.sampled_from([4, 8])),
        "v_head_dim": draw(st.sampled_from([16, 20])),
        "num_nextn_predict_layers": draw(st.integers(0, 1)),
    }
    new = draw(st.lists(st.integers(1, 16), min_size=1, max_size=6))
    return Case(
        config,
        weights=draw(st.sampled_from(FORMATS)),
        mtp=draw(st.booleans()),
        rows=[(count, count + draw(st.integers(0, 300))) for count in new],
        threads=draw(st.integers(1, 4)),
    )


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(case=cases())
def test_a_whole_pass_is_its_operations_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, calls: list[int], case: Case
) -> None:
    path = tmp_path_factory.mktemp("whole")
    random_checkpoint_write(path=path, config=case.config)
    model = load_model(path, weights=case.weights, mtp=case.mtp)
    calls.clear()
    (found, cache), (expected, other) = both_ways(model, case.rows, case.threads)
    assert calls == [sum(new for new, _ in case.rows)]
    assert found.logits_SV.equal(expected.logits_SV)
    assert found.hidden_TD.equal(expected.hidden_TD)
    assert cache.equal(other)
    assert float(found.logits_SV.std()) > 0.01


@torch.inference_mode()
def test_long_rows_are_computed_one_by_one(tiny_dir: Path, calls: list[int]) -> None:
    model = load_model(tiny_dir)
    batch = batch_of(model, [(3, 4)], [[0]])
    row = LongRow(0, 3, 1, torch.tensor([0], dtype=torch.int32))
    cache = model.new_cache(pages=1, page_size=PAGE_SIZE)
    model.forward(dataclasses.replace(batch, short=None, long=(row,)), cache)
    assert not calls


@pytest.mark.parametrize("reference", [False, True])
def test_plain_torch_and_definitions_stay_as_they_are(
    tiny_dir: Path, calls: list[int], reference: bool
) -> None:
    model = load_model(tiny_dir, native=False, reference=reference)
    with torch.inference_mode():
        model.forward(batch_of(model, [(1, 4)], [[0]]), model.new_cache(pages=1, page_size=PAGE_SIZE))
    assert not calls


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"token_T": torch.tensor([264])}, IndexError, "token_T has 264 of 264"),
        ({"token_T": torch.tensor([1, 2])}, RuntimeError, "2 tokens, 1 slots"),
        ({"token_T": torch.tensor([1], dtype=torch.int32)}, RuntimeError, "token_T must be contiguous int64"),
        ({"slot_T": torch.tensor([8])}, IndexError, "slot_T has 8 of 8"),
        ({"slot_T": torch.tensor([-1])}, IndexError, "slot_T has -1"),
        ({"last_S": torch.tensor([1])}, IndexError, "last_S has 1 of 1"),
        ({"turn_TR": torch.ones(1, 3, dtype=torch.complex64)}, RuntimeError, "turn_TR must be"),
        ({"pages_BP": [[2]]}, RuntimeError, "pages outside the cache"),
        ({"end_B": [9]}, RuntimeError, "no pages for its context"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_next_pass_runs(
    tiny_dir: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    torch.set_num_threads(2)
    model = load_model(tiny_dir, weights="int8")
    cache = model.new_cache(pages=2, page_size=PAGE_SIZE)
    batch = batch_of(model, [(1, 3)], [[1]])
    if change.keys() & {"pages_BP", "end_B"}:
        assert batch.short is not None
        rows = {name: torch.tensor(value, dtype=torch.int32) for name, value in change.items()}
        change = {"short": dataclasses.replace(batch.short, **rows)}
    with torch.inference_mode():
        expected = model.forward(batch, cache.clone())
        with pytest.raises(error, match=message):
            model.forward(dataclasses.replace(batch, **change), cache.clone())
        assert model.forward(batch, cache).logits_SV.equal(expected.logits_SV)


@pytest.mark.parametrize(
    "cache",
    [
        torch.zeros(2, 2, 4, 24),  # a layer is missing
        torch.zeros(3, 2, 4, 25),
        torch.zeros(3, 2, 4, 24, dtype=torch.float64),
        torch.zeros(3, 2, 4, 48)[..., :24],
    ],
)
def test_another_models_cache_is_refused(tiny_dir: Path, cache: torch.Tensor) -> None:
    model = load_model(tiny_dir)
    with torch.inference_mode(), pytest.raises(RuntimeError, match="does not fit 3 layers of 24 numbers"):
        model.forward(batch_of(model, [(1, 3)], [[1]]), cache)
