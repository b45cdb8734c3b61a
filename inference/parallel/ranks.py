"""The processes that run one model together, and the two ways in which they talk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

_LOADING = timedelta(hours=1)  # the greatest models are read within it
_IDLE = timedelta(days=365)  # between two steps of an idle engine; a dead leader is noticed by its sockets


class GroupLostError(Exception):
    """Another rank is gone, or keeps the others waiting for longer than it may."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's place among `size`; alone, nothing is exchanged."""

    rank: int = 0
    size: int = 1
    orders: dist.ProcessGroup | None = None
    sums: dist.ProcessGroup | None = None

    @classmethod
    def join(
        cls, *, rank: int, size: int, meeting_file: Path, backend: str = "gloo", limit_s: float = 60.0
    ) -> Ranks:
        """Meet the others at `meeting_file`, which must not exist before the first one arrives.

        Tensors are summed by `backend`, orders always travel by gloo. A rank that keeps the others waiting
        for `limit_s` seconds within a step is lost, and so is one that takes no orders for as long. Raises
        what torch raises when the others do not come.
        """
        if size == 1:
            return cls()
        store, limit = dist.FileStore(str(meeting_file), size), timedelta(seconds=limit_s)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=_LOADING)
        orders = dist.new_group(backend="gloo", timeout=_IDLE if rank else limit)  # each side has its own
        return cls(rank, size, orders, dist.new_group(backend=backend, timeout=limit))

    def meet(self) -> None:
        """Wait until all ranks are here: who loads may take long. Raises GroupLostError; who is late is said
        by the leader's.
        """
        if self.size > 1:
            with _talking():
                dist.monitored_barrier(timeout=_LOADING)

    def leave(self) -> None:
        """Close the connections. Other ranks must not use theirs any more."""
        if self.size > 1:
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Whether this process schedules and chooses tokens."""
        return self.rank == 0

    def share(self, name: str, count: int) -> range:
        """This rank's part of `count` things. Raises `ValueError`, naming them, if they can not be shared."""
        if count % self.size:
            raise ValueError(f"{name} = {count} can not be shared by {self.size} ranks evenly")
        part = count // self.size
        return range(self.rank * part, (self.rank + 1) * part)

    def sum_(self, x: torch.Tensor) -> torch.Tensor:
        """In place: the sum of all ranks' `x`, to the last bit the same everywhere. Raises GroupLostError."""
        if self.size > 1:
            with _talking():
                dist.all_reduce(x, group=self.sums)
        return x

    def send(self, message: torch.Tensor) -> None:
        """From the leader to all others: a message of bytes. Raises GroupLostError."""
        if self.size > 1:
            with _talking():
                dist.broadcast(torch.tensor([len(message)]), 0, group=self.orders)
                dist.broadcast(message, 0, group=self.orders)

    def receive(self) -> torch.Tensor:
        """The leader's next message. Raises GroupLostError when the leader is gone."""
        with _talking():
            length = torch.empty(1, dtype=torch.int64)
            dist.broadcast(length, 0, group=self.orders)
            message = torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(message, 0, group=self.orders)
            return message


@contextmanager
def _talking() -> Iterator[None]:
    """What torch raises while ranks talk is the group's end: no later order could be trusted."""
    try:
        yield
    except RuntimeError as error:
        raise GroupLostError(str(error)) from error
