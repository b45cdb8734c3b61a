"""What a request must satisfy before it may enter; checked on the side of the caller."""

from __future__ import annotations

import math

from inference.engine.types import GenerationRequest, RequestRejected, SamplingParams


def check_request(request: GenerationRequest, *, max_model_len: int, vocab_size: int) -> None:
    """Raise `RequestRejected` unless the request can be served to its end."""
    prompt = request.prompt_token_ids
    if not prompt:
        raise RequestRejected("empty_prompt", "the prompt has no tokens")
    if min(prompt) < 0 or max(prompt) >= vocab_size:
        raise RequestRejected("invalid_token", f"prompt token ids must lie in 0 … {vocab_size - 1}")
    _check_params(request.params)
    wanted = len(prompt) + request.params.max_tokens
    if wanted > max_model_len:
        raise RequestRejected(
            "context_length_exceeded",
            f"{len(prompt)} prompt tokens and max_tokens = {request.params.max_tokens} make {wanted}; "
            f"this model serves at most {max_model_len} together",
        )


def _check_params(params: SamplingParams) -> None:
    if params.max_tokens < 1:
        raise RequestRejected("invalid_params", f"max_tokens: expected at least 1, found {params.max_tokens}")
    if not (math.isfinite(params.temperature) and params.temperature >= 0):
        raise RequestRejected(
            "invalid_params", f"temperature: expected 0 or more, found {params.temperature}"
        )
    if not 0 < params.top_p <= 1:
        raise RequestRejected(
            "invalid_params", f"top_p: expected above 0 and at most 1, found {params.top_p}"
        )
    if not all(params.stop):
        raise RequestRejected("invalid_params", "stop: expected non-empty strings")
