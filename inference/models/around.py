"""A model that runs another one in a way of its own."""

from __future__ import annotations

import torch

from inference.models.interface import Architecture, CausalModel, DraftModule, Routers


class ModelAround:
    """All of a `CausalModel` but `forward`, as `model` has it; `mtp` stands for its prediction module."""

    def __init__(self, model: CausalModel, mtp: DraftModule | None) -> None:
        self._model = model
        self.turn_XR = model.turn_XR
        self.mtp = mtp

    @property
    def config(self) -> Architecture:
        """The model's sizes."""
        return self._model.config

    @property
    def dtype(self) -> torch.dtype:
        """That of activations and cache."""
        return self._model.dtype

    @property
    def routers(self) -> Routers:
        """The model's own."""
        return self._model.routers

    def new_cache(self, *, pages: int, page_size: int) -> torch.Tensor:
        """The model's own."""
        return self._model.new_cache(pages=pages, page_size=page_size)
