"""Buckets and filling; capture itself is replaced by running the work again."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_ops.accelerator.buckets import bucket_for, bucket_sizes, fill_
from moe_ops.accelerator.graphs import DecodeGraphs, StepInput

INPUTS = {
    "slot": StepInput((), torch.int64, padding=99),
    "pages": StepInput((4,), torch.int32, padding=7),
}


@settings(max_examples=100, deadline=None, derandomize=True)
@given(largest=st.integers(1, 300), count=st.integers(0, 400))
def test_a_bucket_holds_its_rows_and_wastes_little(largest: int, count: int) -> None:
    sizes = bucket_sizes(largest)
    assert list(sizes) == sorted(set(sizes))
    assert sizes[-1] == largest
    size = bucket_for(count, sizes)
    if 0 < count <= largest:
        assert size is not None
        assert count <= size < max(2 * count, count + 16)
    else:
        assert size is None


def test_no_bucket_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        bucket_sizes(0)


def test_filling_overwrites_all_that_was_there() -> None:
    target = torch.full((3, 4), 5)
    fill_(target, torch.tensor([[1, 2], [3, 4]]), padding=9)
    assert target.tolist() == [[1, 2, 9, 9], [3, 4, 9, 9], [9, 9, 9, 9]]
    fill_(target, torch.tensor([[1, 2]]), padding=9, repeat=True)
    assert target.tolist() == [[1, 2, 9, 9]] * 3
    with pytest.raises(ValueError, match="does not fit"):
        fill_(target, torch.zeros(2, 5), padding=0)


class Graphs:
    """A step that notes the inputs it sees, behind graphs that are recorded functions."""

    def __init__(self, largest: int) -> None:
        self.seen: list[dict[str, list[object]]] = []
        self.captures = 0
        self.graphs = DecodeGraphs(
            self.step, inputs=INPUTS, largest=largest, device=torch.device("cpu"), capture=self.capture
        )

    def step(self, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        self.seen.append({name: tensor.tolist() for name, tensor in inputs.items()})
        return inputs["slot"] * 10 + inputs["pages"].sum(1), -inputs["slot"]

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1
        return work


def test_a_step_is_filled_up_captured_once_and_cut_to_its_rows() -> None:
    one = Graphs(largest=8)
    for _ in range(2):
        given = {"slot": torch.tensor([1, 2, 3]), "pages": torch.ones(3, 2, dtype=torch.int32)}
        found = one.graphs.run(given)
        assert [part.tolist() for part in found] == [[10 + 16, 20 + 16, 30 + 16], [-1, -2, -3]]
    assert one.captures == 1
    assert one.seen[-1] == {
        "slot": [1, 2, 3, 99], "pages": [[1, 1, 7, 7], [1, 1, 7, 7], [1, 1, 7, 7], [7, 7, 7, 7]]
    }  # fmt: skip


def test_more_rows_than_the_largest_bucket_run_without_a_graph() -> None:
    one = Graphs(largest=2)
    given = {"slot": torch.arange(3), "pages": torch.zeros(3, 4, dtype=torch.int32)}
    assert one.graphs.run(given)[0].tolist() == [0, 10, 20]
    assert one.captures == 0


def test_all_buckets_can_be_captured_ahead() -> None:
    one = Graphs(largest=5)
    one.graphs.capture_all()
    assert one.captures == len(bucket_sizes(5)) == 4
    one.graphs.run({"slot": torch.arange(2), "pages": torch.zeros(2, 4, dtype=torch.int32)})
    assert one.captures == 4


def test_inputs_that_do_not_fit_each_other_are_refused() -> None:
    one = Graphs(largest=2)
    with pytest.raises(ValueError, match="different numbers of rows"):
        one.graphs.run({"slot": torch.arange(1), "pages": torch.zeros(2, 4, dtype=torch.int32)})
    with pytest.raises(ValueError, match="expected"):
        one.graphs.run({"slot": torch.arange(1)})
