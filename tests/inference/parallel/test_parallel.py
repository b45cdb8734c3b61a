"""Two processes compute and serve what one does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write

MEMBER = Path(__file__).with_name("member.py")
# Sums of parts are rounded in another order than sums of the whole: 3 layers of fp32, logits of about 4.
TOLERANCE = 2e-5


def run(size: int, folder: Path, layout: str) -> dict[str, torch.Tensor]:
    members = [
        subprocess.Popen([sys.executable, str(MEMBER), str(rank), str(size), str(folder), layout])
        for rank in range(size)
    ]
    try:
        assert [member.wait(timeout=120) for member in members] == [0] * size
    finally:
        for member in members:
            member.kill()
    return load_file(folder / f"{layout}{size}.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parallel")
    config = {**TINY_V3, "num_nextn_predict_layers": 1}
    random_checkpoint_write(path=path / "checkpoint", config=config, shards=2)
    return path


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, torch.Tensor]:
    return run(1, folder, "whole")


@pytest.mark.parametrize("layout", ["whole", "cut"])
def test_two_processes_give_what_one_gives(folder: Path, alone: dict[str, torch.Tensor], layout: str) -> None:
    together = run(2, folder, layout)
    layers, touched = together.pop("experts").tolist()
    assert layers > 0
    assert 2 * layers <= touched <= 8 * layers  # two of eight for each token, whichever rank has them
    torch.testing.assert_close(together.pop("logits"), alone["logits"], rtol=0, atol=TOLERANCE)
    assert {name: ids.tolist() for name, ids in together.items()} == {
        name: ids.tolist() for name, ids in alone.items() if name not in ("logits", "experts")
    }
    assert all(len(ids) for ids in together.values())
