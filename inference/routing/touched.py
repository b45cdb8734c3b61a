"""How many distinct experts steps of decoding touch: what a step of a large model has to read."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from inference.routing.observer import LayerChoice, RoutingObserver


@dataclass(slots=True)
class Touched:
    """Routed layers that were looked at, and distinct experts in them, added up. Layers beyond the first
    `limit` routed ones are passed over: a draft module is not the model.
    """

    limit: int
    layers: int = 0
    experts: int = 0
    _seen: list[torch.Tensor] = field(default_factory=list)

    def see(self, choice: LayerChoice) -> None:
        """Take in one layer of a step, to be counted after it: a device is not waited for in between."""
        if choice.layer < self.limit:
            self._seen.append(choice.experts_TK)

    def count(self) -> None:
        """Add what was seen. As many are read as are named: a weight of 0 spares nothing."""
        self.layers += len(self._seen)
        self.experts += sum(len(set(experts_TK.flatten().tolist())) for experts_TK in self._seen)
        self._seen.clear()


class TouchedExperts:
    """Looks at one of `every` steps of decoding, those under a profile and the others apart."""

    def __init__(self, layers: int, *, every: int = 16) -> None:
        self._every = every
        self._steps = 0
        self.dynamic = Touched(layers)
        self.fixed = Touched(layers)

    def observer(self, *, fixed: bool) -> RoutingObserver | None:
        """Who is to watch the next step of decoding; None: it is passed over."""
        self._steps += 1
        if self._steps % self._every:
            return None
        return self.fixed if fixed else self.dynamic
