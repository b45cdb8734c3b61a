"""What changes how a request is computed: its adapter, and the experts that its answer may use."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from inference.adapters.files import AdapterError
from inference.adapters.plan import adapter_plan
from inference.adapters.store import AdapterStore
from inference.engine import sequence as sequences
from inference.engine.step import Row
from inference.layers.batch import FlatBatch
from inference.models.interface import Routers
from inference.routing.fitting import profile_fit
from inference.routing.observer import GateMass
from inference.routing.plan import plan_build
from inference.routing.profile import ProfileError, RoutingProfile, profile_load
from inference.routing.request import RequestRouting
from inference.routing.touched import Touched, TouchedExperts


class Changes:
    """The adapters and profiles that are loaded, and their effect on the rows of a step."""

    def __init__(
        self,
        *,
        adapters: AdapterStore | None = None,
        profiles: Iterable[RoutingProfile] = (),
        routers: Routers = (),
        vocabulary: int | None = None,
        counted: int | None = None,
    ) -> None:
        """`vocabulary` counts the model's tokens; touched experts are counted in its first `counted` routed
        layers, by default those of `routers`. Raises `ProfileError` for another checkpoint's profile.
        """
        self.adapters = adapters
        self._routers = routers
        self._counted = len(routers) if counted is None else counted
        self.touched = TouchedExperts(self._counted)
        self.profiles = {profile.id: profile for profile in profiles}
        for profile in self.profiles.values():
            profile_fit(profile, routers, vocabulary)

    def load(self, name: str, folder: str) -> None:
        """Serve the adapter in `folder` as `name`. Raises `AdapterError`."""
        store = self._store()
        store.add(name, store.read(Path(folder)))

    def drop(self, name: str) -> None:
        """Take no more requests for an adapter. Raises `AdapterError`."""
        self._store().drop(name)

    def begin(self, sequence: sequences.Sequence) -> None:
        """Bind a request to what it asks for. Raises `AdapterError` or `ProfileError` if it is not there."""
        request = sequence.request
        if request.routing is not None:
            profile = self.profiles.get(request.routing)
            if profile is None:
                raise ProfileError(f"no routing profile {request.routing} is loaded")
            sequence.routing = RequestRouting(profile, self._routers[0][1])
        if request.adapter is not None:
            sequence.lease = self._store().hold(request.adapter)

    def apply(self, batch: FlatBatch, rows: Iterable[Row]) -> FlatBatch:
        """The batch with its rows' plans, watched where something is to be learnt from it."""
        rows = list(rows)
        if all(row.sequence.lease is None and row.sequence.routing is None for row in rows):
            return self._watched(batch, rows)
        adapter_T = [
            None if row.sequence.lease is None else row.sequence.lease.adapter
            for row in rows
            for _ in row.tokens
        ]
        routing_T = [routing for row in rows for routing in _restrictions(row)]
        batch = dataclasses.replace(
            batch,
            adapters=adapter_plan(adapter_T),
            routing=plan_build(routing_T, batch.token_T),
            observer=self._observer(rows, batch.token_T),
        )
        return self._watched(batch, rows)

    def note(self, batch: FlatBatch, rows: Iterable[Row]) -> None:
        """Take in what the prompts of a step did; the routing of those that have been read is frozen."""
        if isinstance(batch.observer, Touched):
            batch.observer.count()
        if not isinstance(batch.observer, GateMass):
            return
        seen = batch.observer
        for mass_LE, in_table, row in zip(seen.mass_RLE, seen.in_table_R.tolist(), rows, strict=True):
            if row.sequence.routing is not None:
                row.sequence.routing.add(mass_LE, in_table)
                if row.end >= row.sequence.prompt_tokens:
                    row.sequence.routing.freeze()

    def _watched(self, batch: FlatBatch, rows: Sequence[Row]) -> FlatBatch:
        """Experts are counted in steps that only decode; a prompt touches nearly all of them anyway."""
        if not self._counted or batch.observer is not None:
            return batch
        if any(len(row.draws) < len(row.tokens) for row in rows):
            return batch
        observer = self.touched.observer(fixed=batch.routing is not None)
        return batch if observer is None else dataclasses.replace(batch, observer=observer)

    def _store(self) -> AdapterStore:
        if self.adapters is None:
            raise AdapterError("adapters are not served for this architecture")
        return self.adapters

    def _observer(self, rows: Sequence[Row], token_T: torch.Tensor) -> GateMass | None:
        row_T = [
            index if _observed(row, position) else -1
            for index, row in enumerate(rows)
            for position in range(row.start, row.end)
        ]
        if max(row_T) < 0:
            return None
        return GateMass(
            torch.tensor(row_T),
            rows=len(rows),
            layers=len(self._routers),
            experts=len(self._routers[0][0]),
            table_LTK=_table(rows, token_T),
        )


def profiles_load(paths: Iterable[str]) -> list[RoutingProfile]:
    """Read profile files. Raises `ProfileError`."""
    return [profile_load(Path(path)) for path in paths]


def _table(rows: Iterable[Row], token_T: torch.Tensor) -> torch.Tensor | None:
    """What the tier's profile names for each token; a step serves one tier."""
    for row in rows:
        if row.sequence.routing is not None and row.sequence.routing.profile.table_LVK is not None:
            return row.sequence.routing.profile.table_LVK.index_select(1, token_T).long()
    return None


def _observed(row: Row, position: int) -> bool:
    sequence = row.sequence
    return sequence.routing is not None and not sequence.routing.frozen and position < sequence.prompt_tokens


def _restrictions(row: Row) -> list[RequestRouting | None]:
    """By token: prompts are read as the checkpoint routes, answers within the frozen set."""
    sequence, routing = row.sequence, row.sequence.routing
    if routing is None or row.end <= sequence.prompt_tokens:
        return [None] * len(row.tokens)
    fixed = routing if routing.fixed else None
    return [fixed if position >= sequence.prompt_tokens else None for position in range(row.start, row.end)]
