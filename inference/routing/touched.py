"""How many distinct experts steps of decoding touch: what a step of a large model has to read."""

from __future__ import annotations

from dataclasses import dataclass

from inference.routing.observer import LayerChoice, RoutingObserver


@dataclass(slots=True)
class Touched:
    """Routed layers that were looked at, and distinct experts in them, added up. Layers beyond the first
    `limit` routed ones are passed over: a draft module is not the model.
    """

    limit: int
    layers: int = 0
    experts: int = 0

    def see(self, choice: LayerChoice) -> None:
        """Add one layer of one step. As many are read as are named: a weight of 0 spares nothing."""
        if choice.layer < self.limit:
            self.layers += 1
            self.experts += len(set(choice.experts_TK.flatten().tolist()))


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
