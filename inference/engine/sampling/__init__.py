"""From logits to tokens: adjustments, cuts, draws, grammars and log probabilities, a batch at a time.

A row's choice depends on that row alone, so it is the same in any batch. One flow (`choose`)::

    noise      the random number of a request's i-th token
    touched    the tokens that penalties and biases change, counted as the text grows
    adjust     those and the grammar masks of a batch, for the raw logits
    logprobs   the model's own distribution, before all of that
    grammar    what the text must look like, followed token by token beside the forward pass

Temperature, top_k, top_p, min_p and the draw itself are `moe_ops.sample`.
`grammar` needs no torch, so that a process without an engine can check what requests ask for; the rest is
imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inference.engine.sampling.choose import Choice, choose_tokens
    from inference.engine.sampling.logprobs import MAX_TOP_LOGPROBS, prompt_logprobs
    from inference.engine.sampling.noise import uniform

__all__ = ["MAX_TOP_LOGPROBS", "Choice", "choose_tokens", "prompt_logprobs", "uniform"]

_HOMES = {
    "Choice": "choose",
    "choose_tokens": "choose",
    "MAX_TOP_LOGPROBS": "logprobs",
    "prompt_logprobs": "logprobs",
    "uniform": "noise",
}


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(f"inference.engine.sampling.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
