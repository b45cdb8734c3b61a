"""Grammars checked before a request is queued, so that a bad one is a clear refusal and costs no place."""

from __future__ import annotations

import asyncio
from functools import lru_cache

from inference.engine.sampling.grammar import GrammarError, GrammarFactory
from inference.engine.types import Grammar
from inference.worker.ports import TokenizerPort
from inference.worker.refusal import invalid


async def grammar_check(grammar: Grammar, tokenizer: TokenizerPort, param: str) -> None:
    """Compile ``grammar`` beside the event loop. Raises RefusalError (400) naming ``param``."""
    try:
        await asyncio.to_thread(_check, grammar, tokenizer)
    except GrammarError as error:
        message = f"{param}: this cannot be enforced: {error}."
        raise invalid(message, param=param, code="invalid_grammar") from None


def _check(grammar: Grammar, tokenizer: TokenizerPort) -> None:
    _factory(tokenizer).check(grammar)


@lru_cache(maxsize=2)
def _factory(tokenizer: TokenizerPort) -> GrammarFactory:
    """One a tokenizer: a worker has one."""
    return GrammarFactory(tokenizer)
