"""One token per row of logits, and log probabilities of the model's own distribution.

A row's result depends on that row alone, to the bit, whatever the form that computes it. Forms agree except
where rounding decides: a random number that falls on the border of two tokens, equal probabilities of
different logits.
"""

from moe_ops.sample.native import choose, token_logprobs
from moe_ops.sample.reference import LIMITS, Changes

__all__ = ["LIMITS", "Changes", "choose", "token_logprobs"]
