"""Several processes training one network, each on its rows of every batch.

On a shared machine two processes of one thread each lose far less to other programs than one process of two
threads: they wait for one another once per step, not at every matrix product.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

_PATIENCE = timedelta(minutes=20)


@dataclass(frozen=True, slots=True)
class Team:
    """This process's place among `size`; a team of one does nothing."""

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls, *, rank: int, size: int, meeting_file: Path) -> Team:
        """Meet the other processes at `meeting_file`, which must not exist before the first one arrives."""
        if size > 1:
            store = dist.FileStore(str(meeting_file), size)
            dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_PATIENCE)
        return cls(rank, size)

    @property
    def leads(self) -> bool:
        """Whether this process logs and saves."""
        return self.rank == 0

    def agree(self, number: float) -> float:
        """The leader's `number`, for all."""
        if self.size == 1:
            return number
        value = torch.tensor([number], dtype=torch.float64)
        dist.broadcast(value, 0)
        return float(value)

    def add_up(self, tensors: Iterable[torch.Tensor], *, scale: float = 1.0) -> None:
        """In place: every tensor becomes the sum of all processes' ones times `scale`, in one exchange."""
        parts = list(tensors)
        if self.size == 1 or not parts:
            return
        flat = torch.cat([part.reshape(-1) for part in parts]) * scale
        dist.all_reduce(flat)
        for part, values in zip(parts, torch.split(flat, [part.numel() for part in parts]), strict=True):
            part.copy_(values.view_as(part))

    def share(self, count: int) -> slice:
        """This process's part of `count` rows; the count must be a multiple of the team's size."""
        if count % self.size:
            raise ValueError(f"{count} rows cannot be shared by {self.size} processes")
        part = count // self.size
        return slice(self.rank * part, (self.rank + 1) * part)
