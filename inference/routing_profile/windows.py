"""Texts cut into windows, each read as a request would be: a prompt, then its answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from inference.engine.assembly import assemble
from inference.engine.packing import arrange
from inference.engine.sequence import Sequence
from inference.engine.step import Row
from inference.engine.types import GenerationRequest, SamplingParams
from inference.layers.batch import FlatBatch
from inference.models.decoder import Decoder
from inference.models.loader import load_model
from inference.routing.profile import ProfileError
from inference.tokenizer import Tokenizer
from moe_ops.linear import WeightFormat

_PAGE = 16
_LEAST = 16  # tokens: a shorter end of a text says nothing


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens of which the first `prompt` are the question; the rest stands for the answer."""

    tokens: tuple[int, ...]
    prompt: int


def windows_cut(texts: Iterable[str], tokenizer: Tokenizer, *, length: int) -> list[Window]:
    """Windows of `length` tokens, each from its own beginning, half prompt and half answer.

    Raises `ProfileError` when the texts are too short for one.
    """
    found = []
    for text in texts:
        ids = tokenizer.encode(text)
        begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
        for start in range(0, len(ids), length - len(begin)):
            tokens = (*begin, *ids[start : start + length - len(begin)])
            if len(tokens) >= _LEAST:
                found.append(Window(tokens, len(tokens) // 2))
    if not found:
        raise ProfileError(f"the text is shorter than {_LEAST} tokens")
    return found


def texts_read(paths: Iterable[Path]) -> list[str]:
    """The files' contents. Raises `ProfileError` for one that is no UTF-8 text."""
    texts = []
    for path in paths:
        try:
            texts.append(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ProfileError(f"{path}: not readable as text: {error}") from error
    return texts


def routed_model(path: Path, weights: WeightFormat) -> Decoder:
    """The checkpoint's model. Raises `ProfileError` when nothing in it is routed, and as `load_model`."""
    model = load_model(path, weights=weights)
    if not isinstance(model, Decoder) or not model.routers:
        raise ProfileError(f"{path}: this model has no routed layers")
    return model


class Reader:
    """Reads parts of one window after the other with a cache of its own."""

    def __init__(self, model: Decoder, *, length: int) -> None:
        self._model = model
        self._pages = tuple(range(-(-length // _PAGE)))
        self._cache = model.new_cache(pages=len(self._pages), page_size=_PAGE)

    def batch(self, window: Window, start: int, end: int) -> FlatBatch:
        """The pass over positions `start` to `end`; what is before must have been read. It gives the logits
        of all its tokens.
        """
        request = GenerationRequest("window", window.tokens, SamplingParams(max_tokens=1))
        pages = self._pages[: -(-end // _PAGE)]
        row = Row(Sequence(request, 0, 0), window.tokens[start:end], start, pages)
        batch = assemble(arrange([row]), page_size=_PAGE, turn_XR=self._model.turn_XR)
        return replace(batch, last_S=torch.arange(len(batch.token_T)))

    @torch.inference_mode()
    def read(self, batch: FlatBatch) -> torch.Tensor:
        """Logits of every token of the pass (fp32)."""
        return self._model.forward(batch, self._cache).logits_SV
