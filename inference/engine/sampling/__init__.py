"""From logits to tokens: adjustments, cuts, draws, grammars and log probabilities, a batch at a time.

A row's choice depends on that row alone, so it is the same in any batch. One flow (`choose`)::

    noise      the random number of a request's i-th token
    adjust     penalties, biases and grammar masks, on the raw logits
    cuts       temperature, top_k, top_p, min_p and the draw
    logprobs   the model's own distribution, before all of that
    grammar    what the text must look like, followed token by token beside the forward pass
"""

from inference.engine.sampling.choose import Choice, choose_tokens
from inference.engine.sampling.logprobs import MAX_TOP_LOGPROBS, prompt_logprobs
from inference.engine.sampling.noise import uniform

__all__ = ["MAX_TOP_LOGPROBS", "Choice", "choose_tokens", "prompt_logprobs", "uniform"]
