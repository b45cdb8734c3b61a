"""Which tokens of a step belong to which adapter, in a form that layers can apply module by module.

All adapters of a step are served by the same forward pass; their small products are added to the big one's
result (S-LoRA, arXiv:2311.03285).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from inference.adapters.files import Adapter, LowRank
from inference.layers.forms import Linear


@dataclass(frozen=True, slots=True)
class AdapterPlan:
    """The adapters of a step; `token_N[i]` are the places of the flat batch that use `adapters[i]`."""

    adapters: tuple[Adapter, ...]
    token_N: tuple[torch.Tensor, ...]

    @classmethod
    def build(cls, adapter_T: Sequence[Adapter | None]) -> AdapterPlan | None:
        """The plan for a flat batch whose tokens use these adapters; None when there are none."""
        places: dict[str, list[int]] = {}
        adapters: dict[str, Adapter] = {}
        for place, adapter in enumerate(adapter_T):
            if adapter is not None:
                adapters[adapter.digest] = adapter
                places.setdefault(adapter.digest, []).append(place)
        if not adapters:
            return None
        return cls(tuple(adapters.values()), tuple(torch.tensor(places[digest]) for digest in adapters))

    def add_(self, module: str, out_TO: torch.Tensor, x_TI: torch.Tensor, linear: Linear) -> None:
        """Add each adapter's change of `module` to its tokens' rows of `out_TO`."""
        for adapter, token_N in zip(self.adapters, self.token_N, strict=True):
            change = adapter.modules.get(module)
            if change is not None:
                out_TO.index_add_(0, token_N, low_rank(x_TI.index_select(0, token_N), change, linear))

    def only(self, token: int) -> AdapterPlan | None:
        """The plan of one token alone."""
        mine = [one for one, at_N in zip(self.adapters, self.token_N, strict=True) if token in at_N.tolist()]
        return AdapterPlan(tuple(mine), (torch.zeros(1, dtype=torch.int64),)) if mine else None

    def touches(self, prefix: str) -> bool:
        """Whether any adapter changes a module whose name starts with `prefix`."""
        return any(adapter.touches(prefix) for adapter in self.adapters)


def low_rank(x_NI: torch.Tensor, change: LowRank, linear: Linear) -> torch.Tensor:
    """`B (A x)` of each row, of shape (N, O)."""
    return linear(linear(x_NI, change.a), change.b)
