"""What a request must satisfy before it may enter; checked on the side of the caller."""

from __future__ import annotations

import math

from inference.engine.types import GenerationRequest, RequestRejected, SamplingParams

PRIORITY_MAX = 100  # and -100: far apart enough, and nobody waits for hours
LOGPROBS_MAX = 20
SCORES_MAX = 1_000_000  # log probabilities of a prompt, which go out in one event: 40 MB of it at most
_PENALTY_MAX = 2.0
_BIAS_MAX = 100.0


def check_request(request: GenerationRequest, *, max_model_len: int, vocab_size: int) -> None:
    """Raise `RequestRejected` unless the request can be served to its end."""
    prompt = request.prompt_token_ids
    if not prompt:
        raise RequestRejected("empty_prompt", "the prompt has no tokens")
    if min(prompt) < 0 or max(prompt) >= vocab_size:
        raise RequestRejected("invalid_token", f"prompt token ids must lie in 0 … {vocab_size - 1}")
    _check_order(request)
    if request.embed:
        _check_length(len(prompt), 0, max_model_len)
        return
    _check_params(request.params, vocab_size)
    check_scores(len(prompt), request.params.prompt_logprobs)
    _check_length(len(prompt), request.params.max_tokens, max_model_len)


def check_scores(prompt: int, wanted: int | None) -> None:
    """Raise `RequestRejected` unless the log probabilities of so many `prompt` tokens, each with those of
    `wanted` others (None: none are wanted), can be handed out.
    """
    if wanted is not None and (count := prompt * (1 + wanted)) > SCORES_MAX:
        raise RequestRejected(
            "invalid_params",
            f"logprobs: expected at most {SCORES_MAX} of prompt tokens; "
            f"{prompt} tokens with {wanted} others each make {count}",
        )


def _check_length(prompt: int, max_tokens: int, max_model_len: int) -> None:
    wanted = prompt + max_tokens
    if wanted > max_model_len:
        raise RequestRejected(
            "context_length_exceeded",
            f"{prompt} prompt tokens and max_tokens = {max_tokens} make {wanted}; "
            f"this model serves at most {max_model_len} together",
        )


def _check_order(request: GenerationRequest) -> None:
    if abs(request.priority) > PRIORITY_MAX:
        raise _invalid("priority", f"-{PRIORITY_MAX} … {PRIORITY_MAX}", request.priority)
    deadline_s = request.deadline_s
    if deadline_s is not None and not 0 < deadline_s < math.inf:
        raise _invalid("deadline_s", "a number above 0", deadline_s)


def _check_params(params: SamplingParams, vocab_size: int) -> None:
    if params.max_tokens < 1:
        raise _invalid("max_tokens", "at least 1", params.max_tokens)
    if not 0 <= params.temperature < math.inf:
        raise _invalid("temperature", "0 or more", params.temperature)
    if not 0 < params.top_p <= 1:
        raise _invalid("top_p", "above 0 and at most 1", params.top_p)
    if params.top_k < 0:
        raise _invalid("top_k", "0 or more", params.top_k)
    if not 0 <= params.min_p <= 1:
        raise _invalid("min_p", "0 … 1", params.min_p)
    if not all(params.stop):
        raise _invalid("stop", "non-empty strings", "")
    _check_logits(params, vocab_size)


def _check_logits(params: SamplingParams, vocab_size: int) -> None:
    for name in ("presence_penalty", "frequency_penalty"):
        if not abs(getattr(params, name)) <= _PENALTY_MAX:
            raise _invalid(name, f"-{_PENALTY_MAX} … {_PENALTY_MAX}", getattr(params, name))
    if not 0 < params.repetition_penalty < math.inf:
        raise _invalid("repetition_penalty", "above 0", params.repetition_penalty)
    for name in ("logprobs", "prompt_logprobs"):
        count = getattr(params, name)
        if count is not None and not 0 <= count <= LOGPROBS_MAX:
            raise _invalid(name, f"0 … {LOGPROBS_MAX}", count)
    for token, bias in params.logit_bias:
        if not (0 <= token < vocab_size and abs(bias) <= _BIAS_MAX):
            raise _invalid("logit_bias", f"token ids and -{_BIAS_MAX} … {_BIAS_MAX}", (token, bias))


def _invalid(name: str, expected: str, found: object) -> RequestRejected:
    return RequestRejected("invalid_params", f"{name}: expected {expected}; found {found}")
