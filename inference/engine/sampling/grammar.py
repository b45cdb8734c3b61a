"""Structured output: which tokens a JSON schema, a regular expression or a Lark grammar allows next.

The work is llguidance's (an Earley parser over derivatives of regular expressions, walked along the token
trie). Compiling a grammar and computing a mask release the interpreter's lock, so both run on a thread of
their own beside the forward pass; only reading `mask` waits.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from inference.engine.sampling.grammar_source import GrammarError, grammar_source
from inference.engine.types import Grammar

__all__ = ["GrammarError", "GrammarFactory", "GrammarState"]

# Fuel counts steps, so that the same grammar passes or fails on any machine. Most grammars take 50,000 a
# millisecond in the lexer's construction and 14,000 in a mask, by llguidance's own figures; patterns made to
# be slow, such as (a{1000}){1000}, were seen to take a second and 150 MB for a million. Schemas that fill
# MAX_SOURCE_BYTES with enums, formats or properties took less than the limit here.
_LIMITS = LLParserLimits(
    max_items_in_row=2_000,
    initial_lexer_fuel=100_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_lexer_states=50_000,
    max_grammar_size=200_000,
    verbose_errors=False,
)
_COMPILED_KEPT = 16
_THREADS = 2  # so that a large grammar being compiled does not hold up the masks of others
# Rules and references that lead from one to the next are followed by recursion, as deep as a source of
# MAX_SOURCE_BYTES is long: a usual stack of 8 MiB ends the process at some 3,000, 64 MiB were enough for
# 9,000. Only what is touched takes memory.
_STACK_BYTES = 256 * 1024 * 1024
_ERROR_CHARS = 600
_LISTING = re.compile(r"\n *\d+ \|")
_UNSAID = re.compile(r"\s*<non-verbose/>")
_PLAINLY = {"NoExtensionBias": "no text can follow in it"}  # llguidance's names for what it found

Mask = np.ndarray[tuple[int], np.dtype[np.uint8]]


class Vocabulary(Protocol):
    """What is needed of a tokenizer."""

    @property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The bytes of each token; empty for control tokens."""

    @property
    def eos_ids(self) -> frozenset[int]:
        """Tokens that end a text."""

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Token ids of text; with `allow_special` control tokens spelled in it are those tokens."""


class GrammarFactory:
    """Compiles grammars for one tokenizer; the latest ones are kept, as requests tend to repeat them.

    Costs nothing until the first grammar: llguidance's tree of all tokens is built then.
    """

    def __init__(self, tokenizer: Vocabulary) -> None:
        self._tokenizer = tokenizer
        self._tokens: LLTokenizer | None = None
        self._threads = _deep_threads(_THREADS)
        self._compiled: OrderedDict[Grammar, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, grammar: Grammar) -> None:
        """Raise GrammarError, with a reason fit for the caller, unless a text can begin in the grammar."""
        _ = self.start(grammar).mask

    def start(self, grammar: Grammar) -> GrammarState:
        """A state at the beginning of a text; it takes memory from its first `prepare` or `mask` on. What is
        wrong shows at `mask`.
        """
        vocabulary = len(self._tokenizer.token_bytes)
        return GrammarState(lambda: self._matcher(grammar), vocabulary, self._threads)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)

    def _matcher(self, grammar: Grammar) -> LLMatcher:
        """A fresh matcher: a copy of the compiled one."""
        with self._lock:
            found = self._compiled.get(grammar)
            if found is not None:
                self._compiled.move_to_end(grammar)
                return found.deep_copy()
            if self._tokens is None:
                self._tokens = _tokenizer(self._tokenizer)
        matcher = LLMatcher(self._tokens, grammar_source(grammar), log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise GrammarError(_reason(matcher.get_error()))
        with self._lock:
            self._compiled[grammar] = matcher
            if len(self._compiled) > _COMPILED_KEPT:
                self._compiled.popitem(last=False)
            return matcher.deep_copy()


class MatcherSource(Protocol):
    """Makes the matcher, on the grammar thread."""

    def __call__(self) -> LLMatcher:
        """Raises GrammarError."""


class GrammarState:
    """Where one text stands in its grammar. Once the grammar is complete only end tokens are allowed.

    `mask` has a bit per token, lowest first in each byte. Use it from one thread: `prepare`, compute logits,
    read `mask`, choose, `advance`.
    """

    def __init__(self, source: MatcherSource, vocabulary: int, threads: ThreadPoolExecutor) -> None:
        self._source = source
        self._threads = threads
        self._mask: Mask = np.zeros(-(-vocabulary // 32) * 4, dtype=np.uint8)
        self._matcher: LLMatcher | None = None
        self._latest: Future[None] | None = None

    def prepare(self) -> Future[None]:
        """Have the first mask computed beside what the caller does meanwhile; nothing after that."""
        if self._latest is None:
            self._latest = self._threads.submit(self._begin)
        return self._latest

    @property
    def mask(self) -> Mask:
        """Allowed tokens, valid until `advance`. Raises GrammarError when the text cannot go on."""
        self.prepare().result()
        return self._mask

    def advance(self, token: int) -> None:
        """Take the chosen token; the next mask is computed beside what the caller does meanwhile."""
        self.prepare().result()
        self._latest = self._threads.submit(self._follow, token)

    def _begin(self) -> None:
        self._matcher = self._source()
        self._fill(self._matcher)

    def _follow(self, token: int) -> None:
        matcher = self._matcher
        if matcher is None:
            raise GrammarError("the grammar was not compiled")
        matcher.consume_token(token)
        self._fill(matcher)

    def _fill(self, matcher: LLMatcher) -> None:
        if not matcher.is_error():
            matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        if matcher.is_error():
            raise GrammarError(_reason(matcher.get_error()))
        if not self._mask.any():
            raise GrammarError("no token of this model may follow")


class _Wrapped:
    """Our tokenizer as llguidance reads one."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Vocabulary) -> None:
        self._tokenizer = tokenizer
        self.eos_token_id = min(tokenizer.eos_ids)
        names = (data or b"<%d>" % id_ for id_, data in enumerate(tokenizer.token_bytes))
        self.tokens = list(names)
        self.special_token_ids = [id_ for id_, data in enumerate(tokenizer.token_bytes) if not data]

    def __call__(self, raw: bytes | str) -> list[int]:
        """How text that a grammar leaves no choice about is written: marks of tool calls as the model's own
        tokens. Tokens without bytes, such as an end token, never stand for text.
        """
        text = raw if isinstance(raw, str) else raw.decode()
        ids = self._tokenizer.encode(text, allow_special=True)
        shown = self._tokenizer.token_bytes
        return ids if all(shown[id_] for id_ in ids) else self._tokenizer.encode(text)


def _deep_threads(count: int) -> ThreadPoolExecutor:
    """Threads with great stacks, started now: the size is a setting for the threads that start under it."""
    usual = threading.stack_size(_STACK_BYTES)
    try:
        threads, started = ThreadPoolExecutor(count, "grammar"), threading.Barrier(count)
        list(threads.map(lambda _: started.wait(), range(count)))
    finally:
        threading.stack_size(usual)
    return threads


def _tokenizer(tokenizer: Vocabulary) -> LLTokenizer:
    if not tokenizer.eos_ids:
        raise GrammarError("this model has no end token, so no grammar can end")
    wrapped: object = _Wrapped(tokenizer)
    size = len(tokenizer.token_bytes)
    return LLTokenizer(wrapped, n_vocab=size, eos_token=sorted(tokenizer.eos_ids))  # type: ignore[arg-type]  # read by shape


def _reason(error: str) -> str:
    """llguidance's message without its listing of the grammar, in words."""
    said = _UNSAID.sub("", _LISTING.split(error, maxsplit=1)[0]).strip()[:_ERROR_CHARS]
    return _PLAINLY.get(said, said) or "it cannot be compiled"
