from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from inference.routing.profile import ProfileError, RoutingProfile, profile_load, routers_digest

POOL = RoutingProfile(
    mode="pool", domain="code", checkpoint="c", layers=2, experts=4, size=2, coverage_min=0.5, covered=0.8,
    tokens=100, experts_LM=torch.tensor([[0, 2], [1, 3]]),
)  # fmt: skip


def test_a_profile_comes_back_as_it_was_with_the_same_id(tmp_path: Path) -> None:
    POOL.save(tmp_path / "p")
    again = profile_load(tmp_path / "p")
    assert again.experts_LM is not None
    assert torch.equal(again.experts_LM, torch.tensor([[0, 2], [1, 3]]))
    assert again.id == POOL.id
    assert again.id.startswith("rp_")
    assert replace(POOL, coverage_min=0.6).id != POOL.id


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experts_LM": None}, "without its tensor"),
        ({"experts_LM": torch.tensor([[0, 2]])}, "expected 2 layers"),
        ({"experts_LM": torch.tensor([[0, 2], [1, 4]])}, "beyond 0 … 3"),
        ({"experts_LM": torch.tensor([[0, 2], [1, 3]], dtype=torch.int16)}, "dimensions of torch.int64"),
        ({"experts_LM": torch.tensor([0, 2])}, "expected 2 dimensions"),
        ({"size": 5}, "size: expected"),
        ({"mode": "pond"}, "mode: expected"),
        ({"mode": "hash"}, "without its tensor"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    replace(POOL, **change).save(tmp_path / "p")  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ProfileError, match=message):
        profile_load(tmp_path / "p")


def test_damaged_files_are_errors(tmp_path: Path) -> None:
    POOL.save(tmp_path / "p")
    whole = (tmp_path / "p").read_bytes()
    for cut in (0, 5, 60, len(whole) - 1):
        (tmp_path / "p").write_bytes(whole[:cut])
        with pytest.raises(ProfileError, match="not readable"):
            profile_load(tmp_path / "p")
    with pytest.raises(ProfileError, match="not readable"):
        profile_load(tmp_path / "absent")


def test_the_routers_digest_tells_checkpoints_apart() -> None:
    one = torch.arange(6.0).view(2, 3)
    assert routers_digest([one, one]) == routers_digest([one.double(), one])
    assert routers_digest([one, one]) != routers_digest([one, one + 1])
