"""Texts that follow a grammar token by token, limits, and what is refused."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from inference.engine.sampling import choose_tokens
from inference.engine.sampling.grammar import GrammarError, GrammarFactory, GrammarState
from inference.engine.sampling.grammar_source import MAX_DEPTH, MAX_SOURCE_BYTES
from inference.engine.types import Grammar
from inference.tokenizer import Tokenizer

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["red", "grün"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def factory(nano_tokenizer: Tokenizer) -> Iterator[GrammarFactory]:
    made = GrammarFactory(nano_tokenizer)
    yield made
    made.close()


def allowed(state: GrammarState) -> list[int]:
    found: list[int] = np.flatnonzero(np.unpackbits(state.mask, bitorder="little")).tolist()
    return found


def random_text(state: GrammarState, tokenizer: Tokenizer, seed: int) -> str:
    """A text of any allowed tokens, up to the end token."""
    chance, tokens = random.Random(seed), list[int]()
    for _ in range(2000):
        token = chance.choice(allowed(state))
        if token in tokenizer.eos_ids:
            return b"".join(tokenizer.token_bytes[one] for one in tokens).decode()
        tokens.append(token)
        state.advance(token)
    pytest.fail("the grammar lets texts go on without end")


@pytest.mark.parametrize("seed", range(6))
def test_any_text_of_allowed_tokens_meets_the_schema(
    factory: GrammarFactory, nano_tokenizer: Tokenizer, seed: int
) -> None:
    state = factory.start(Grammar("json_schema", json.dumps(PERSON)))
    made = json.loads(random_text(state, nano_tokenizer, seed))
    assert list(made) == ["name", "age", "tags"]
    assert len(made["name"]) <= 12
    assert 0 <= made["age"] <= 150
    assert set(made["tags"]) <= {"red", "grün"}
    assert len(made["tags"]) <= 3


@pytest.mark.parametrize(
    ("kind", "source", "pattern"),
    [
        ("regex", r"[a-c]{2,4}-\d{3}", r"[a-c]{2,4}-\d{3}"),
        ("lark", 'start: "yes" | "no" /[!?]{1,2}/', r"yes|no[!?]{1,2}"),
    ],
)
def test_patterns_and_grammars_are_followed(
    factory: GrammarFactory, nano_tokenizer: Tokenizer, kind: Any, source: str, pattern: str
) -> None:
    for seed in range(5):
        text = random_text(factory.start(Grammar(kind, source)), nano_tokenizer, seed)
        assert re.fullmatch(pattern, text)


def test_a_complete_text_allows_only_the_end(factory: GrammarFactory, nano_tokenizer: Tokenizer) -> None:
    state = factory.start(Grammar("regex", "ab"))
    for token in nano_tokenizer.encode("ab"):
        assert token in allowed(state)
        state.advance(token)
    assert allowed(state) == sorted(nano_tokenizer.eos_ids)


def test_the_best_allowed_token_is_chosen_and_states_are_independent(
    factory: GrammarFactory, nano_tokenizer: Tokenizer, draw_of: Any
) -> None:
    one, two = (factory.start(Grammar("regex", "[0-9]{2}")) for _ in range(2))
    logits = torch.randn(3, nano_tokenizer.vocab_size, generator=torch.Generator().manual_seed(6))
    wanted = [draw_of(temperature=0.0, grammar=state) for state in (one, two, None)]
    first, second, free = choose_tokens(logits, wanted)
    assert first is not None
    assert second is not None
    assert free is not None
    assert free.token == logits[2].argmax()
    assert nano_tokenizer.decode([first.token]).isdecimal()
    one.advance(first.token)
    fresh = factory.start(Grammar("regex", "[0-9]{2}"))
    assert allowed(two) == allowed(fresh) != allowed(one)


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        (Grammar("json_schema", '{"type":"strin"}'), "Invalid type: strin"),
        (Grammar("json_schema", '{"type":"string","not":{"const":"x"}}'), "Unimplemented keys"),
        (Grammar("json_schema", '{"$ref":"https://example.org/x"}'), "not present"),
        (Grammar("json_schema", "[1]"), "must be a JSON object"),
        (Grammar("json_schema", "{"), "not valid JSON"),
        (Grammar("json_schema", '{"x-guidance":{"lenient":true}}'), "x-guidance"),
        (Grammar("regex", "(a"), "unclosed group"),
        (Grammar("lark", "start: nothing"), 'unknown name: "nothing"'),
        (Grammar("regex", "a" * (MAX_SOURCE_BYTES + 1)), "at most 65536"),
        (Grammar("regex", r"[^\x00-\x{10FFFF}]"), "no text can follow in it"),
        (Grammar("json_schema", '{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/a"}}}'), "no text can"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_its_reason(
    factory: GrammarFactory, grammar: Grammar, reason: str
) -> None:
    with pytest.raises(GrammarError, match=re.escape(reason)):
        factory.check(grammar)
    with pytest.raises(GrammarError, match=re.escape(reason)):
        _ = factory.start(grammar).mask


def test_a_reason_lists_nothing_of_the_grammar(factory: GrammarFactory) -> None:
    """Reasons are logged, and a grammar is as private as a prompt."""
    rules = [f"T{at}: T{at + 1} T{at + 1}" for at in range(40)]
    with pytest.raises(GrammarError, match="too big") as caught:
        factory.check(Grammar("lark", "\n".join(["start: T0", *rules, 'T40: "secret"'])))
    assert "T1" not in str(caught.value)


def test_a_model_without_an_end_token_follows_no_grammar(nano_tokenizer: Tokenizer) -> None:
    endless = SimpleNamespace(
        token_bytes=nano_tokenizer.token_bytes, eos_ids=frozenset[int](), encode=nano_tokenizer.encode
    )
    with pytest.raises(GrammarError, match="no end token"):
        GrammarFactory(endless).check(Grammar("regex", "a"))


def test_depth_is_limited(factory: GrammarFactory) -> None:
    def nested(depth: int) -> str:
        schema: dict[str, object] = {"type": "string"}
        for _ in range(depth - 1):
            schema = {"type": "array", "items": schema}
        return json.dumps(schema)

    factory.check(Grammar("json_schema", nested(MAX_DEPTH)))
    with pytest.raises(GrammarError, match="nested deeper"):
        factory.check(Grammar("json_schema", nested(MAX_DEPTH + 1)))


DEEP = {
    "rules": Grammar(
        "lark", "\n".join(["start: r0", *(f"r{at}: r{at + 1}" for at in range(4000)), 'r4000: "a"'])
    ),
    "references": Grammar(
        "json_schema",
        json.dumps(
            {
                "$ref": "#/$defs/0",
                "$defs": {str(at): {"items": {"$ref": f"#/$defs/{at + 1}"}} for at in range(1500)}
                | {"1500": {"type": "null"}},
            }
        ),
    ),
}


@pytest.mark.parametrize("name", DEEP)
def test_long_chains_do_not_end_the_process(name: str) -> None:
    """In a process of its own, as what is tested for can not be caught."""
    grammar = DEEP[name]
    program = (
        "import sys\n"
        "from inference.engine.sampling.grammar import GrammarFactory\n"
        "from inference.engine.types import Grammar\n"
        "class Bytes:\n"
        "    token_bytes = tuple(bytes([byte]) for byte in range(256)) + (b'',)\n"
        "    eos_ids = frozenset({256})\n"
        "    def encode(self, text, *, allow_special=False): return list(text.encode())\n"
        "factory, grammar = GrammarFactory(Bytes()), Grammar(sys.argv[1], sys.stdin.read())\n"
        "factory.check(grammar)\n"
        "state = factory.start(grammar)\n"
        "print(state.mask.any())\n"
        "factory.close()\n"
    )
    command = [sys.executable, "-c", program, grammar.kind]
    done = subprocess.run(command, check=False, input=grammar.source, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_large_schemas_are_followed_and_costly_patterns_refused(factory: GrammarFactory) -> None:
    formats = ["date-time", "email", "uuid", "ipv4", "uri", "time"]
    fields = {f"p{at}": {"type": "string", "format": formats[at % 6]} for at in range(200)}
    for schema in (
        {"enum": [f"word{at}" for at in range(5000)]},
        {"type": "object", "properties": fields, "required": list(fields), "additionalProperties": False},
    ):
        factory.check(Grammar("json_schema", json.dumps(schema)))
    with pytest.raises(GrammarError, match="fuel exhausted"):
        factory.check(Grammar("json_schema", json.dumps({"type": "integer", "multipleOf": 1_000_000_007})))


def test_nothing_is_compiled_for_those_who_wait(nano_tokenizer: Tokenizer) -> None:
    compiled: list[int] = []

    class Watched(GrammarFactory):
        def _matcher(self, grammar: Grammar) -> Any:
            compiled.append(1)
            return super()._matcher(grammar)

    watched = Watched(nano_tokenizer)
    states = [watched.start(Grammar("regex", "a")) for _ in range(9)]
    states[0].prepare().result()
    assert states[0].mask.any()
    assert len(compiled) == 1
    watched.close()


def test_a_grammar_without_a_way_on_says_so(factory: GrammarFactory, nano_tokenizer: Tokenizer) -> None:
    state = factory.start(Grammar("lark", r'start: "a" /[^\x00-\x{10FFFF}]/'))
    for token in nano_tokenizer.encode("a"):
        state.advance(token)
    with pytest.raises(GrammarError, match="no text can follow in it"):
        _ = state.mask


def test_no_token_for_what_must_follow_is_an_error(nano_tokenizer: Tokenizer) -> None:
    class Poor:
        """Knows letters only."""

        eos_ids = nano_tokenizer.eos_ids
        token_bytes = tuple(
            data if data.isalpha() and data.isascii() else b"" for data in nano_tokenizer.token_bytes
        )

        def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
            return nano_tokenizer.encode(text, allow_special=allow_special)

    factory = GrammarFactory(Poor())
    try:
        with pytest.raises(GrammarError):
            factory.check(Grammar("regex", "[0-9]{3}"))
    finally:
        factory.close()


def test_a_token_that_is_not_allowed_ends_the_state(
    factory: GrammarFactory, nano_tokenizer: Tokenizer
) -> None:
    state = factory.start(Grammar("regex", "[0-9]{2}"))
    state.advance(nano_tokenizer.encode("x")[0])
    with pytest.raises(GrammarError):
        _ = state.mask
