"""Grammars checked before a request is queued, so that a bad one is a clear refusal and costs no place."""

from __future__ import annotations

import asyncio
from weakref import WeakKeyDictionary

from inference.engine.sampling.grammar import GrammarError, GrammarFactory
from inference.engine.types import Grammar
from inference.worker.ports import TokenizerPort
from inference.worker.refusal import invalid

_FACTORIES: WeakKeyDictionary[TokenizerPort, GrammarFactory] = WeakKeyDictionary()  # a worker has one


async def grammar_check(grammar: Grammar, tokenizer: TokenizerPort, param: str) -> None:
    """Compile ``grammar`` beside the event loop. Raises RefusalError (400) naming ``param``."""
    try:
        await asyncio.to_thread(_check, grammar, tokenizer)
    except GrammarError as error:
        message = f"{param}: this cannot be enforced: {error}."
        raise invalid(message, param=param, code="invalid_grammar") from None


def grammars_close(tokenizer: TokenizerPort) -> None:
    """Nothing more is checked for ``tokenizer``: end the threads that did it."""
    factory = _FACTORIES.pop(tokenizer, None)
    if factory is not None:
        factory.close()


def _check(grammar: Grammar, tokenizer: TokenizerPort) -> None:
    factory = _FACTORIES.get(tokenizer)
    if factory is None:
        factory = _FACTORIES.setdefault(tokenizer, GrammarFactory(tokenizer))
    factory.check(grammar)
