"""Some processes compute and serve what one does.

How far apart they may be is measured, not chosen. `error` is how far one process is from the definition in
fp32: what sums in another order change, and what rounding weights, activations and the cache changes.
Processes that share the model take other sums, and other scales where a matrix is cut, but round no more than
one does. Two results with independent errors of one size are √2 of it apart; `APART` times is allowed. With
fp32 0.6 to 1.1 were found, with int8 up to 1.5: experts whose scores are near change places.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from inference.engine.changes import Changes
from inference.engine.runner import Runner
from inference.models.decoder import Decoder
from inference.models.interface import CausalModel
from inference.models.loader import load_model
from inference.models.random_checkpoint import random_checkpoint_write
from moe_ops.linear import WeightFormat
from tests.inference.parallel.cases import CASES, CONFIG, MADE, MODELS, TEXTS, Case, Found, computed, served

ROOT = Path(__file__).parents[3]
APART = 3.0


class Alone:
    """What one process computes of a model."""

    def __init__(self, folder: Path, weights: WeightFormat, definition: Found) -> None:
        model = load_model(folder, weights=weights, mtp=True)
        assert isinstance(model, Decoder)
        self.model, self._folder = model, folder
        self.computed = computed(model, TEXTS)
        self.error = {name: rms(self.computed[name] - exact) for name, exact in definition.items()}

    @cache  # noqa: B019 -- as many as there are models, for as long as the tests of this module
    def served(self) -> Found:
        changes = Changes(counted=len(self.model.routers))
        return served(Runner(self.model, CONFIG, changes=changes), self._folder)


def rms(error: torch.Tensor) -> float:
    return float(error.square().mean().sqrt())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints, and what groups of processes made of them."""
    path = tmp_path_factory.mktemp("parallel")
    for name, config in MODELS.items():
        random_checkpoint_write(path=path / name, config=config, shards=2)
    member = [sys.executable, "-m", "tests.inference.parallel.member", str(path)]
    subprocess.run(member, cwd=ROOT, timeout=240, check=True)
    return path


@pytest.fixture(scope="module")
def alone(folder: Path) -> Callable[[Case], Alone]:
    @cache
    def definition(model: str) -> Found:
        return computed(load_model(folder / model, mtp=True, reference=True), TEXTS)

    @cache
    def get(model: str, weights: WeightFormat) -> Alone:
        return Alone(folder / model, weights, definition(model))

    return lambda case: get(case.model, case.weights)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
class TestTogether:
    def test_they_compute_what_one_computes(
        self, folder: Path, alone: Callable[[Case], Alone], case: Case
    ) -> None:
        one, together = alone(case), load_file(folder / case.name)
        assert ("drafts" in one.computed) == bool(MODELS[case.model]["num_nextn_predict_layers"])
        for name, expected in one.computed.items():
            assert rms(together[name] - expected) <= APART * one.error[name], name

    def test_they_serve_what_one_serves(
        self, folder: Path, alone: Callable[[Case], Alone], case: Case
    ) -> None:
        one, together = alone(case), load_file(folder / case.name)
        names = [name.removeprefix("text ") for name in together if name.startswith("text ")]
        texts = [tuple(together[f"text {name}"].tolist()) for name in names]
        given = torch.cat([together[f"scores {name}"] for name in names])
        assert rms(given - scores(one.model, texts)) <= APART * one.error["after"]
        cached, drafted, _ = together["counts"].tolist()
        assert cached > 80
        assert (drafted > 40) == bool(MODELS[case.model]["num_nextn_predict_layers"])
        layers, touched = together["experts"].tolist()
        experts = MODELS[case.model]["n_routed_experts"]
        assert isinstance(experts, int)
        assert 0 < 2 * layers <= touched <= experts * layers  # whichever rank has them
        if case.weights == "float32":
            expected = one.served()
            whole = [name for name in together if name.startswith(("text", "counts", "experts"))]
            assert {name: together[name].tolist() for name in whole} == {
                name: expected[name].tolist() for name in whole
            }


def scores(model: CausalModel, texts: list[tuple[int, ...]]) -> torch.Tensor:
    """Log probabilities of each text's completion when all of it is read at once."""
    after = computed(model, texts)["after"].split([len(text) for text in texts])
    parts = [
        part[-MADE - 1 : -1].gather(1, torch.tensor(text[-MADE:]).unsqueeze(1)).squeeze(1)
        for part, text in zip(after, texts, strict=True)
    ]
    return torch.cat(parts)
