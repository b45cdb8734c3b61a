"""The leader's runner, and the loop of the other ranks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch

from inference.engine.changes import Changes
from inference.engine.runner import Runner
from inference.engine.step import RowResult, Step
from inference.engine.types import EngineConfig
from inference.layers.batch import FlatBatch
from inference.models.around import ModelAround
from inference.models.interface import CausalModel, DraftModule, Forward
from inference.parallel.codec import Codec
from inference.parallel.group import group_lost
from inference.parallel.ranks import GroupLostError, Ranks

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MakeCache:
    """Make the latent cache anew."""

    pages: int
    page_size: int


@dataclass(frozen=True, slots=True)
class RunForward:
    """Run the model."""

    batch: FlatBatch


@dataclass(frozen=True, slots=True)
class RunDraft:
    """Run the prediction module."""

    batch: FlatBatch
    hidden_TD: torch.Tensor
    next_token_T: torch.Tensor


@dataclass(frozen=True, slots=True)
class Scrub:
    """Zero some pages of the cache."""

    pages: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stop:
    """The leader ends."""


_CODEC = Codec((MakeCache, RunForward, RunDraft, Scrub, Stop))


class LeadingModel(ModelAround):
    """A model that has the other ranks do what it does. Heads and widths of its `config` are this rank's."""

    def __init__(self, model: CausalModel, ranks: Ranks) -> None:
        super().__init__(model, None if model.mtp is None else _LeadingDraft(model.mtp, ranks))
        self._ranks = ranks

    def new_cache(self, *, pages: int, page_size: int) -> torch.Tensor:
        """This rank's cache; the others make theirs."""
        self._ranks.send(_CODEC.encode(MakeCache(pages, page_size)))
        return super().new_cache(pages=pages, page_size=page_size)

    def forward(self, batch: FlatBatch, cache: torch.Tensor) -> Forward:
        """The whole model's result."""
        self._ranks.send(_CODEC.encode(RunForward(_plain(batch))))
        return self._model.forward(batch, cache)


class _LeadingDraft:
    def __init__(self, module: DraftModule, ranks: Ranks) -> None:
        self._module = module
        self._ranks = ranks

    def forward(
        self, batch: FlatBatch, hidden_TD: torch.Tensor, next_token_T: torch.Tensor, cache: torch.Tensor
    ) -> torch.Tensor:
        self._ranks.send(_CODEC.encode(RunDraft(_plain(batch), hidden_TD, next_token_T)))
        return self._module.forward(batch, hidden_TD, next_token_T, cache)


class ParallelRunner(Runner):
    """The runner of rank 0: scheduling and choice of tokens are as ever, the model runs on all ranks.
    `changes` may count experts, no more; `on_end` is called once the others were told to end.
    """

    def __init__(
        self,
        model: CausalModel,
        config: EngineConfig,
        ranks: Ranks,
        *,
        changes: Changes | None = None,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._ranks = ranks
        self._on_end = on_end
        super().__init__(LeadingModel(model, ranks), config, changes=changes)

    def run(self, step: Step) -> list[RowResult]:
        """As the runner of a whole model; a lost group ends this process, see `group_lost`."""
        with _all_or_none():
            return super().run(step)

    def scrub(self, pages: Iterable[int]) -> None:
        """Zero pages on all ranks."""
        numbers = tuple(pages)
        with _all_or_none():
            self._ranks.send(_CODEC.encode(Scrub(numbers)))
        super().scrub(numbers)

    def close(self) -> None:
        """Let the other ranks end."""
        with _all_or_none():
            self._ranks.send(_CODEC.encode(Stop()))
        self._on_end()


@contextmanager
def _all_or_none() -> Iterator[None]:
    """Ranks that have lost one another compute nothing more: this process ends."""
    try:
        yield
    except GroupLostError as error:
        group_lost(str(error))
        raise


def _plain(batch: FlatBatch) -> FlatBatch:
    """`batch` as the other ranks compute it. Every rank routes all tokens, so the leader alone watches.
    Raises `ValueError` for what parts of a model cannot compute.
    """
    if batch.adapters is not None or batch.routing is not None:
        raise ValueError("adapters and fixed routing need the whole model on one rank")
    return batch if batch.observer is None else replace(batch, observer=None)


@torch.inference_mode()
def follow(model: CausalModel, ranks: Ranks) -> None:
    """Do what the leader orders until it stops. Raises GroupLostError when it is gone.

    An order that fails here fails on the leader too, who then runs its rows alone: it is logged and let go.
    """
    cache = torch.empty(0)
    while True:
        order = _CODEC.decode(ranks.receive())
        if isinstance(order, Stop):
            return
        if isinstance(order, MakeCache):
            cache = model.new_cache(pages=order.pages, page_size=order.page_size)
            continue
        try:
            _obey(order, model, cache)
        except GroupLostError:
            raise
        except Exception:
            _log.exception("rank %d: %s failed", ranks.rank, type(order).__name__)


def _obey(order: RunForward | RunDraft | Scrub, model: CausalModel, cache: torch.Tensor) -> None:
    if isinstance(order, RunForward):
        model.forward(order.batch, cache)
    elif isinstance(order, Scrub):
        cache[:, list(order.pages)] = 0
    elif model.mtp is not None:
        model.mtp.forward(order.batch, order.hidden_TD, order.next_token_T, cache)
