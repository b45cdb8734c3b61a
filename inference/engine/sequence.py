"""The scheduler's record of one request."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from inference.engine.sampling.touched import Touched, is_penalised
from inference.engine.types import FinishReason, GenerationRequest, TokenLogprob

if TYPE_CHECKING:
    from inference.adapters.store import Lease
    from inference.engine.sampling.grammar import GrammarState
    from inference.routing.request import RequestRouting


@dataclass(slots=True, eq=False)
class Sequence:
    """A prompt and its continuation so far.

    `computed` counts the leading `tokens` whose latents are in `pages`. `rank` orders requests: lower ones
    are never made to wait for the pages of higher ones. `cached_tokens` is what the first admission found in
    the cache. `keys` name the contents of full pages, of which the first `published` can be found by others;
    `awaits` is the key of a page that another request is about to fill. `drafts` are guesses at the next
    tokens, allowed where no choice depends on the tokens between (penalties, grammars); `unseen` counts
    tokens that the draft module has not read. `scores` are the log probabilities of the prompt so far.
    `lease` holds its adapter, `routing` its fixed experts; `touched` counts its tokens for penalties.
    """

    request: GenerationRequest
    arrival: int
    seed: int
    grammar: GrammarState | None = None
    tokens: list[int] = field(default_factory=list)
    pages: array[int] = field(default_factory=lambda: array("i"))
    computed: int = 0
    finish_reason: FinishReason | None = None
    rank: tuple[float, int] = (0.0, 0)
    submitted_s: float = 0.0
    begun: bool = False
    cached_tokens: int = 0
    keys: list[bytes] = field(default_factory=list)
    published: int = 0
    awaits: bytes | None = None
    drafts: tuple[int, ...] = ()
    unseen: int = 0
    scores: list[TokenLogprob] = field(default_factory=list)
    prompt_tokens: int = 0
    drafts_allowed: bool = True
    lease: Lease | None = None
    routing: RequestRouting | None = None
    touched: Touched | None = None

    def __post_init__(self) -> None:
        self.tokens = list(self.request.prompt_token_ids)
        self.prompt_tokens = len(self.tokens)
        params = self.request.params
        plain = params.grammar is None and not is_penalised(params)
        self.drafts_allowed = plain and not self.request.embed
        self.touched = Touched.of(params)

    @property
    def completion_tokens(self) -> int:
        return len(self.tokens) - self.prompt_tokens

    @property
    def pending(self) -> int:
        """Tokens still to be computed: 1 while decoding, more while (re)reading the prompt."""
        return len(self.tokens) - self.computed

    @property
    def may_share(self) -> bool:
        """Whether cached pages will do: a session's set of experts follows from a prompt that was read."""
        routing = self.routing
        return routing is None or routing.frozen or routing.profile.mode != "session"

    @property
    def tier(self) -> str | None:
        """The fixed-routing profile that its answer is computed under, None: dynamic. Until the prompt has
        been read, the one that was asked for.
        """
        routing = self.routing
        return None if routing is None or (routing.frozen and not routing.fixed) else self.request.routing

    @property
    def scoring(self) -> bool:
        """Whether log probabilities of the prompt are still wanted."""
        return self.request.params.prompt_logprobs is not None and len(self.scores) < self.prompt_tokens - 1
