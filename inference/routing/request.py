"""One request's fixed routing: what its prompt did, and which experts its answer may use."""

from __future__ import annotations

from functools import lru_cache

import torch

from inference.routing.profile import RoutingProfile
from inference.routing.selection import keep_best
from moe_ops.router import RouterSpec

DYNAMIC = "dynamic"


class RequestRouting:
    """Gathers the prompt's gate mass, then freezes; the answer keeps what was frozen, whatever happens.

    `report` is the profile's id, or `dynamic` followed by the covered share when the prompt fell below the
    profile's threshold.
    """

    def __init__(self, profile: RoutingProfile, spec: RouterSpec) -> None:
        self.profile = profile
        self._spec = spec
        self._mass_LE = torch.zeros(profile.layers, profile.experts, dtype=torch.float64)
        self._in_table = 0.0
        self.frozen = False
        self.kept_LE = pool_mask(profile)  # None: no set, or not before the prompt has been read
        self.report = profile.id

    @property
    def fixed(self) -> bool:
        """Whether tokens computed now are restricted."""
        return self.frozen and not self.report.startswith(DYNAMIC)

    def add(self, mass_LE: torch.Tensor, in_table: float = 0.0) -> None:
        """More of the prompt was read: the gate mass its tokens gave to each expert of each routed layer, and
        to those that a table names for them.
        """
        if not self.frozen:
            self._mass_LE += mass_LE
            self._in_table += in_table

    def restart(self) -> None:
        """The prompt will be read again from its beginning."""
        if not self.frozen:
            self._mass_LE.zero_()
            self._in_table = 0.0

    def freeze(self) -> None:
        """The prompt has been read. What came from the prefix cache was not seen; with nothing seen, the
        profile is taken at its word.
        """
        if self.frozen:
            return
        self.frozen = True
        if self.profile.mode == "session":
            self.kept_LE = keep_best(self._mass_LE, self.profile.size, self._spec)
        covered = self.covered()
        if covered is not None and covered < self.profile.coverage_min:
            self.report = f"{DYNAMIC}; covered {covered:.3f} of {self.profile.coverage_min:.3f}"

    def covered(self) -> float | None:
        """The share of the prompt's gate mass within the kept experts; None when nothing was seen."""
        total = float(self._mass_LE.sum())
        if not total:
            return None
        if self.kept_LE is None:
            return self._in_table / total
        return float((self._mass_LE * self.kept_LE).sum()) / total


@lru_cache(maxsize=64)
def pool_mask(profile: RoutingProfile) -> torch.Tensor | None:
    """A pool profile's experts as a mask (L, E), the same one each time; None in other modes."""
    if profile.experts_LM is None:
        return None
    mask_LE = torch.zeros(profile.layers, profile.experts, dtype=torch.bool)
    return mask_LE.scatter_(1, profile.experts_LM, True)
