"""Muon for the matrices inside blocks, AdamW for everything else, in one optimiser with one state.

Muon orthogonalises the momentum of each matrix; stacked experts are a batch of matrices. It learns about a third
faster per token than AdamW at this size, and costs a few percent of a step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrix: torch.Tensor, *, steps: int = 5) -> torch.Tensor:
    """The nearest matrix with all singular values about 1 (last two dimensions), by Newton-Schulz iteration."""
    a, b, c = _QUINTIC
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class MuonAdamW(torch.optim.Optimizer):
    """Each group's `muon` flag says which rule applies; `lr` is multiplied by the schedule outside."""

    def __init__(self, network: nn.Module, *, muon_lr: float, adam_lr: float, weight_decay: float) -> None:
        muon, adam = [], []
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
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure: one gradient per step
        for group in self.param_groups:
            update = self._muon if group["muon"] else self._adam
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["decay"])
                    parameter.add_(update(parameter, parameter.grad), alpha=-group["lr"])

    def _muon(self, parameter: torch.Tensor, gradient: torch.Tensor, momentum: float = 0.95) -> torch.Tensor:
        state = self.state[parameter]
        buffer = state.setdefault("momentum", torch.zeros_like(gradient))
        buffer.lerp_(gradient, 1 - momentum)
        direction = gradient.lerp(buffer, momentum)
        rows, columns = parameter.shape[-2:]
        update: torch.Tensor = orthogonalise(direction) * max(1.0, rows / columns) ** 0.5
        return update

    def _adam(self, parameter: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        state = self.state[parameter]
        if not state:
            state.update(step=torch.zeros(()), mean=torch.zeros_like(gradient), square=torch.zeros_like(gradient))
        state["step"] += 1
        state["mean"].lerp_(gradient, 0.1)
        state["square"].lerp_(gradient.square(), 0.05)
        mean = state["mean"] / (1 - 0.9 ** state["step"])
        square = state["square"] / (1 - 0.95 ** state["step"])
        update: torch.Tensor = mean / (square.sqrt() + 1e-8)
        return update
