"""Which modules of a checkpoint one operation computes."""

from __future__ import annotations

from dataclasses import dataclass

Parts = tuple[tuple[str, int], ...]
"""Modules of one input, and the columns of the common result where their outputs begin, in rising order."""


@dataclass(frozen=True, slots=True, eq=False)
class ExpertNames:
    """What the experts of one packed stack are called in a checkpoint; tables are kept by identity.

    Expert `e` is `prefix.experts.e`; the last `shared` together are `prefix.shared_experts`, split by width.
    Without routed experts (`routed` 0) the stack is `prefix` itself.
    """

    prefix: str
    routed: int
    shared: int

    def module(self, expert: int) -> tuple[str, int]:
        """The module that `expert` is, and which slice of its width."""
        if not self.routed:
            return self.prefix, expert
        if expert < self.routed:
            return f"{self.prefix}.experts.{expert}", 0
        return f"{self.prefix}.shared_experts", expert - self.routed
