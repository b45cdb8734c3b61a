"""Two processes take the steps one would take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from inference.train.team import Team

MEMBER = Path(__file__).with_name("member.py")


def trained(size: int, folder: Path) -> dict[str, torch.Tensor]:
    out = folder / f"of{size}.safetensors"
    members = [
        subprocess.Popen(
            [sys.executable, str(MEMBER), str(rank), str(size), str(folder / f"meeting{size}"), str(out)]
        )
        for rank in range(size)
    ]
    assert [member.wait(timeout=200) for member in members] == [0] * size
    return load_file(out)


def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    alone, together = trained(1, tmp_path), trained(2, tmp_path)
    for name, value in alone.items():
        assert torch.allclose(together[name], value, atol=2e-3, rtol=2e-2), name


def test_a_team_of_one_changes_nothing() -> None:
    team, tensor = Team(), torch.ones(3)
    team.add_up([tensor], scale=0.5)
    assert tensor.tolist() == [1, 1, 1]
    assert team.agree(0.25) == 0.25
    assert team.leads


def test_rows_are_shared_evenly_or_not_at_all() -> None:
    assert [Team(rank, 2).share(8) for rank in (0, 1)] == [slice(0, 4), slice(4, 8)]
    with pytest.raises(ValueError, match="9 rows cannot be shared by 2"):
        Team(0, 2).share(9)
