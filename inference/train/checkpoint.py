"""Checkpoints that survive `kill -9`: one safetensors file, written aside and renamed into place.

Holds the network (bias included), the optimiser, random states, and as JSON the step, clock and data cursor.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

_NETWORK, _OPTIMIZER, _RANDOM = "network.", "optimizer.", "random.torch"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All state of a run; `facts` is plain JSON data."""

    network: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    random_state: torch.Tensor
    facts: dict[str, Any]


def snapshot_write(snapshot: Snapshot, *, path: Path) -> None:
    """Write atomically: a reader, or a run after a crash, sees the old file or the new one."""
    tensors = {_NETWORK + name: tensor.contiguous() for name, tensor in snapshot.network.items()}
    tensors |= {_OPTIMIZER + name: tensor.contiguous() for name, tensor in snapshot.optimizer.items()}
    tensors[_RANDOM] = snapshot.random_state
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".partial")
    save_file(tensors, aside, metadata={"facts": json.dumps(snapshot.facts)})
    with aside.open("rb") as written:
        os.fsync(written.fileno())
    aside.replace(path)


def snapshot_read(*, path: Path) -> Snapshot | None:
    """The checkpoint at `path`, or None when there is none yet."""
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        facts = json.loads(file.metadata()["facts"])
    return Snapshot(
        network=_part(tensors, _NETWORK),
        optimizer=_part(tensors, _OPTIMIZER),
        random_state=tensors[_RANDOM],
        facts=facts,
    )


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
