"""What crosses the engine's boundary: requests in, token events out, configuration and statistics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

WEIGHTS = ("float32", "bfloat16", "int8", "int4")
ACTIVATIONS = ("int8", "float")
DEVICES = ("cpu", "cuda", "npu")

FinishReason = Literal["stop", "length", "cancelled", "expired", "refused", "stuck", "lost", "error"]
"""How a request ended. "expired", "refused" (what it asks for has gone since it was checked): it never began.
"stuck": no token may follow in its grammar. "lost": the engine failed, not this request. "error": its own
computation failed.
"""


@dataclass(frozen=True, slots=True)
class Grammar:
    """What the text must look like: a JSON schema, a regular expression or llguidance's Lark dialect."""

    kind: Literal["json_schema", "regex", "lark"]
    source: str


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to continue a prompt.

    `temperature` 0 is greedy. `seed` makes the draw repeatable whatever else is in the batch; None draws one.
    `top_k` 0 and `min_p` 0 keep every token. Penalties count the completion's tokens (repetition: the
    prompt's too) and are applied to the raw logits, as is `logit_bias`, pairs of token id and what is added.
    Text that contains a `stop` string ends before it. `logprobs` asks for the chosen token's log probability
    and that many of the best; `prompt_logprobs` for the same of every prompt token. They are those of the
    model, before temperature and cuts.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    grammar: Grammar | None = None
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One prompt to continue; `request_id` must be unique among the requests in flight.

    Cached prefixes are shared only among requests of equal `salt`, `adapter` and `routing` (a fixed-routing
    profile's id). Lower `priority` goes first; a request that has not begun after `deadline_s` seconds ends
    with "expired". `embed` asks for the last hidden state of the prompt's last token instead of a
    continuation.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    params: SamplingParams
    salt: str = ""
    adapter: str | None = None
    routing: str | None = None
    priority: int = 0
    deadline_s: float | None = None
    embed: bool = False


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """Natural log probability of a token, and the best tokens of its place with theirs, best first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class TokenEvent:
    """What one step brought to one request.

    `text` is what may be shown now: empty while it could still become part of a stop string or of a character
    whose bytes are not complete. `token_ids` are the tokens of this event. The three counts are totals so
    far; the end-of-sequence token and the tokens of a stop string count as completion tokens, because they
    were produced. `problem` says more of an end as "refused" or "stuck", fit for the caller.
    """

    request_id: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_logprobs: tuple[TokenLogprob | None, ...] = ()
    embedding: tuple[float, ...] | None = None
    routing: str | None = None
    problem: str | None = None


EventBatch = list[tuple[int, TokenEvent]]
"""Events of several requests of one caller, each with its request's number among them."""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot after the latest step. All but the first four and `max_running` count since the start.

    `prompt_tokens` are those of requests that have `begun`, `cached_tokens` the part of them found in the
    cache; of `drafted_tokens` that were verified, `accepted_tokens` came true. `queue_wait_s` adds up the
    waits of requests before they began. A step's seconds go to `schedule_s` (choosing rows and recording
    what they brought), `forward_s`, `sample_s` and `draft_s`; the loop's to waiting for commands and obeying
    them, stepping, and handing on what the steps brought, at the beat if there is one. In one of sixteen
    steps that only decode, `experts_touched` adds up the distinct experts of the `experts_layers` routed
    layers: their quotient is the experts touched per step and layer. Steps under a fixed-routing profile are
    counted apart.
    """

    running: int
    queued: int
    pages_total: int
    pages_free: int
    generated_tokens: int
    steps: int
    max_running: int
    prompt_tokens: int = 0
    cached_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    begun: int = 0
    expired: int = 0
    preemptions: int = 0
    queue_wait_s: float = 0.0
    schedule_s: float = 0.0
    forward_s: float = 0.0
    sample_s: float = 0.0
    draft_s: float = 0.0
    waiting_s: float = 0.0
    stepping_s: float = 0.0
    publishing_s: float = 0.0
    experts_layers: int = 0
    experts_touched: int = 0
    fixed_experts_layers: int = 0
    fixed_experts_touched: int = 0


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Sizes of one engine: the cache holds `pages` × `page_size` tokens, a step computes `step_token_budget`
    at most.

    `weights` is the form in which matrices are held, and `activations` what int8 and int4 ones meet:
    activations rounded to int8, or fp32 ones as they are, which is closer to the model and slower. A request
    goes before those of the next priority that came up to `aging_s` earlier. `speculate` lets a checkpoint's
    prediction module draft tokens, where it has one and while that pays. At most `adapters_max` LoRA adapters
    are loaded at once, of ranks up to `adapter_rank_max`; `routing_profiles` are the files of fixed-routing
    profiles. With `paced` tokens come on a beat (see `pace.py`), a bit later on average and at even
    intervals. Packed weights are kept in the folder `cache_dir` and mapped from there.

    With `ranks` above 1 so many processes run the model together (see `inference.parallel`), each on its
    share of the `threads`; `expert_layout` says whether a rank has all of some experts or channels of all.
    One that keeps the others waiting for `rank_limit_s` within a step has failed, and the engine with it.
    Adapters and profiles need the whole model in one.

    `device` is where the model and its cache lie: the CPU, or the first GPU or NPU, which take float32 and
    bfloat16 weights and hold the whole model.
    """

    page_size: int = 16
    pages: int = 2048
    max_running: int = 64
    step_token_budget: int = 512
    threads: int = 1
    weights: Literal["float32", "bfloat16", "int8", "int4"] = "float32"
    activations: Literal["int8", "float"] = "int8"
    max_queued: int = 1024
    aging_s: float = 10.0
    speculate: bool = False
    adapters_max: int = 0
    adapter_rank_max: int = 64
    routing_profiles: tuple[str, ...] = ()
    paced: bool = False
    cache_dir: str | None = None
    ranks: int = 1
    expert_layout: Literal["whole", "cut"] = "whole"
    device: Literal["cpu", "cuda", "npu"] = "cpu"
    rank_limit_s: float = 60.0

    @property
    def threads_a_rank(self) -> int:
        """How many threads each of the processes that run the model computes with."""
        return max(1, self.threads // self.ranks)

    def __post_init__(self) -> None:
        for name in ("page_size", "pages", "max_running", "step_token_budget", "threads", "ranks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, found {getattr(self, name)}")
        if self.max_queued < 0:
            raise ValueError(f"max_queued: expected at least 0, found {self.max_queued}")
        if self.step_token_budget < self.max_running:
            raise ValueError(
                f"step_token_budget: expected at least max_running = {self.max_running}, "
                f"so that every running request gets a token each step; found {self.step_token_budget}"
            )
        if not 0 <= self.aging_s < float("inf"):
            raise ValueError(f"aging_s: expected a number of at least 0, found {self.aging_s}")
        if not 0 < self.rank_limit_s < float("inf"):
            raise ValueError(f"rank_limit_s: expected a number above 0, found {self.rank_limit_s}")
        for name, known in (("weights", WEIGHTS), ("activations", ACTIVATIONS), ("device", DEVICES)):
            if getattr(self, name) not in known:
                expected = ", ".join(known)
                raise ValueError(f"{name}: expected one of {expected}; found {getattr(self, name)!r}")
        if self.activations == "float" and self.weights not in ("int8", "int4"):
            raise ValueError(f"activations: with {self.weights} weights they are float as it is")
        if self.device != "cpu" and self.weights not in ("float32", "bfloat16"):
            raise ValueError(
                f"weights: device {self.device} takes float32 or bfloat16; {self.weights} needs device cpu"
            )
        if self.device != "cpu" and self.ranks > 1:
            raise ValueError(f"ranks = {self.ranks}: a model is shared by processes on device cpu only")
        if self.ranks > 1 and (self.adapters_max or self.routing_profiles):
            raise ValueError(f"ranks = {self.ranks}: adapters and routing profiles need ranks = 1")


class RequestRejected(ValueError):  # noqa: N818 -- an answer to the caller, not a fault
    """The request can not be taken; nothing was computed.

    `code` is one of `context_length_exceeded`, `empty_prompt`, `invalid_token`, `invalid_params`,
    `duplicate_request`, `queue_full` (try again later) and `engine_closed` (try another worker).
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
