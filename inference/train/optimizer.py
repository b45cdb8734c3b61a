"""Muon for the matrices inside blocks, AdamW for everything else, in one optimiser with one state.

Muon orthogonalises the momentum of each matrix, so all its directions move alike; stacked experts are a batch
of matrices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from inference.train.team import Team

_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: torch.Tensor, *, steps: int = 5) -> torch.Tensor:
    """The nearest matrix with singular values of about 1 (last two dimensions), by Newton-Schulz steps."""
    a, b, c = _QUINTIC
    tall = matrix.shape[-2] > matrix.shape[-1]
    x: torch.Tensor = matrix.mT if tall else matrix
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class MuonAdamW(torch.optim.Optimizer):
    """Each group's `muon` flag says which rule applies; `lr` is multiplied by the schedule outside."""

    def __init__(
        self,
        network: nn.Module,
        *,
        muon_lr: float,
        adam_lr: float,
        weight_decay: float,
        team: Team = Team(),  # noqa: B008  # frozen
    ) -> None:
        muon: list[nn.Parameter] = []
        adam: list[nn.Parameter] = []
        for name, parameter in network.named_parameters():
            plain = parameter.dim() < 2 or any(
                part in name for part in ("embed_tokens", "lm_head", "gate.weight")
            )
            (adam if plain else muon).append(parameter)
        groups: list[dict[str, Any]] = [
            {"params": muon, "muon": True, "lr": muon_lr, "base_lr": muon_lr, "decay": weight_decay},
            {"params": adam, "muon": False, "lr": adam_lr, "base_lr": adam_lr, "decay": 0.0},
        ]
        super().__init__(groups, {})
        self._names = dict(network.named_parameters())
        self._team = team
        self._mine = _own_part([parameter.numel() for parameter in muon], team)

    def schedule(self, multiplier: float) -> None:
        """Set every group's rate to its base rate times `multiplier`."""
        for group in self.param_groups:
            group["lr"] = group["base_lr"] * multiplier

    def named_state(self) -> dict[str, torch.Tensor]:
        """All state tensors as `parameter name/state name`, for a checkpoint."""
        return {
            f"{name}/{key}": value
            for name, parameter in self._names.items()
            for key, value in self.state[parameter].items()
        }

    def load_named_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Restore what `named_state` gave."""
        for full_name, value in tensors.items():
            name, key = full_name.rsplit("/", 1)
            self.state[self._names[name]][key] = value

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # one gradient a step
        for group in self.param_groups:
            used = [parameter for parameter in group["params"] if parameter.grad is not None]
            updates = self._muon(used) if group["muon"] else [self._adam(parameter) for parameter in used]
            for parameter, update in zip(used, updates, strict=True):
                parameter.mul_(1 - group["lr"] * group["decay"])
                parameter.add_(update, alpha=-group["lr"])

    def _muon(self, parameters: Sequence[torch.Tensor], momentum: float = 0.95) -> list[torch.Tensor]:
        """Updates of all matrices; each process of the team orthogonalises its part."""
        updates = []
        for number, parameter in enumerate(parameters):
            gradient = _gradient(parameter)
            buffer = self.state[parameter].setdefault("momentum", torch.zeros_like(gradient))
            buffer.lerp_(gradient, 1 - momentum)
            rows, columns = parameter.shape[-2:]
            if number in self._mine:
                update = orthogonalise(gradient.lerp(buffer, momentum)) * max(1.0, rows / columns) ** 0.5
            else:
                update = torch.zeros_like(gradient)
            updates.append(update)
        self._team.add_up(updates)
        return updates

    def _adam(self, parameter: torch.Tensor) -> torch.Tensor:
        state, gradient = self.state[parameter], _gradient(parameter)
        if not state:
            state.update(
                step=torch.zeros(()), mean=torch.zeros_like(gradient), square=torch.zeros_like(gradient)
            )
        state["step"] += 1
        state["mean"].lerp_(gradient, 0.1)
        state["square"].lerp_(gradient.square(), 0.05)
        mean = state["mean"] / (1 - 0.9 ** state["step"])
        square = state["square"] / (1 - 0.95 ** state["step"])
        update: torch.Tensor = mean / (square.sqrt() + 1e-8)
        return update


def _gradient(parameter: torch.Tensor) -> torch.Tensor:
    if parameter.grad is None:
        raise ValueError("a parameter without a gradient cannot be updated")
    return parameter.grad


def _own_part(sizes: Sequence[int], team: Team) -> frozenset[int]:
    """Which matrices this process orthogonalises: the largest first, each to whoever has least so far."""
    work = [0] * team.size
    mine = set()
    for number in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        owner = work.index(min(work))
        work[owner] += sizes[number]
        if owner == team.rank:
            mine.add(number)
    return frozenset(mine)
