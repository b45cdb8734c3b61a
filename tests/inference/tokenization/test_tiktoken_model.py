"""Kimi K2's tokenizer files against tiktoken's own rule, written down plainly."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import regex
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.chat_template import MARK
from inference.tokenization.tiktoken_model import byte_pairs
from inference.tokenizer import Tokenizer, TokenizerError
from tests.inference.kimi import CONTROL, SPELLED, ranked_tokens, tokenizer_write

BYTES = [bytes([byte]) for byte in range(256)]
# The published cutting, with set differences in another notation and another library.
_BIG, _SMALL = (rf"[\p{{{case}}}\p{{Lm}}\p{{Lo}}\p{{M}}--\p{{Han}}]" for case in (r"Lu}\p{Lt", "Ll"))
_BEFORE, _AFTER = r"[^\r\n\p{L}\p{N}]?", "(?:'(?i:s|t|re|ve|m|ll|d))?"
PIECES = regex.compile(
    rf"(?V1)\p{{Han}}+|{_BEFORE}{_BIG}*{_SMALL}+{_AFTER}|{_BEFORE}{_BIG}+{_SMALL}*{_AFTER}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXTS = [
    "Hello, world! It's DON'T i'LL we'Re 'twas o'clock aTSTabsb ab'S bT'Ta",
    "中文English混合 汉字abc 北京市 Pascal 々〇〡ㆍ、。「」",
    "1234567890 3.14 12 ٣٤٥٦ ⅷ²½",
    "  \n\n \t\r\n   x\u3000\u3000y\u00a0\u00a0\u0085 \x0b\x0c end  ",
    "👩‍👩‍👧‍👦 🇩🇪 🏳️‍🌈 e\u0301a\u0300\u0301 Ǆǅǆ ʰª",
    "カタカナ ひらがな 한국어 नमस्ते สวัสดี مرحبا İstanbul Straße",
    "<|im_end|>[BOS]<|tool_call_begin|>",
    "def f(x):\n\treturn {**x, 'a': 0xFF}  # …\r\n",
    "\x00\x7f\ufffd\U0010fffd",
]


def joined(data: bytes, rank_of: Mapping[bytes, int]) -> list[int]:
    """tiktoken's rule: of all neighbours the two that make the token of lowest rank, until none do."""
    if data in rank_of:
        return [rank_of[data]]
    parts = [bytes([byte]) for byte in data]
    while True:
        found = [(rank_of.get(a + b, 1 << 30), place) for place, (a, b) in enumerate(pairwise(parts))]
        rank, place = min(found, default=(1 << 30, 0))
        if rank == 1 << 30:
            return [rank_of[part] for part in parts]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


def reference(text: str, rank_of: Mapping[bytes, int]) -> list[int]:
    return [id_ for piece in PIECES.findall(text) for id_ in joined(piece.encode(), rank_of)]


def shuffled_tokens() -> list[bytes]:
    """Tokens whose parts may rank after them or be none, ends of characters among them; bytes come last."""
    chance = random.Random(7)
    letters = [char.encode() for char in "ab'sST 1中é😀"]
    pieces = [*letters[:8], *(bytes([byte]) for byte in "中é😀".encode())]
    made = {
        b"".join(chance.choices(alphabet, k=chance.randint(2, 5)))
        for alphabet in (letters, pieces)
        for _ in range(2500)
    }
    made |= {"中".encode(), "é".encode(), "😀".encode(), b"aTSTabsb"}
    return [*chance.sample(sorted(made), len(made)), *BYTES]


VOCABULARIES = {"learned": ranked_tokens(), "shuffled": shuffled_tokens(), "bytes": BYTES}
RANK_OF = {name: {token: rank for rank, token in enumerate(tokens)} for name, tokens in VOCABULARIES.items()}


@pytest.fixture(scope="module")
def plain() -> dict[str, tokenizers.Tokenizer]:
    return {name: byte_pairs(tokens) for name, tokens in VOCABULARIES.items()}


def ids_of(plain: tokenizers.Tokenizer, text: str) -> list[int]:
    ids: list[int] = plain.encode(text, add_special_tokens=False).ids
    return ids


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize("text", TEXTS)
def test_texts_are_encoded_as_by_tiktoken(
    plain: dict[str, tokenizers.Tokenizer], name: str, text: str
) -> None:
    assert ids_of(plain[name], text) == reference(text, RANK_OF[name])


# Letters, digits and marks that every version of Unicode in use knows; no surrogates.
ANY = st.text(
    st.characters(max_codepoint=0x2FFF, exclude_categories=("Cs", "Cn", "Co"))
    | st.sampled_from("中文字😀👍"),
    max_size=20,
)
MIXED = st.lists(
    st.one_of(
        ANY,
        st.text("ab's1 中é😀\n\r\t'ST", max_size=20),
        st.sampled_from(["'ll", "DON'T", "  ", "\n \n", "12345", "中文", "カナ", "\u3000", "é"]),
    ),
    max_size=5,
).map("".join)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=st.one_of(MIXED, st.text("aB中1!' \r\n\t", max_size=12), st.sampled_from(TEXTS)))
def test_texts_are_cut_as_published(plain: dict[str, tokenizers.Tokenizer], text: str) -> None:
    cut = plain["bytes"].pre_tokenizer.pre_tokenize_str(text)
    assert [text[begin:end] for _, (begin, end) in cut] == PIECES.findall(text)


@pytest.mark.parametrize("name", ["learned", "shuffled"])
@settings(max_examples=150, deadline=None, derandomize=True)
@given(text=MIXED)
def test_any_text_is_encoded_as_by_tiktoken(
    plain: dict[str, tokenizers.Tokenizer], name: str, text: str
) -> None:
    ids = ids_of(plain[name], text)
    assert ids == reference(text, RANK_OF[name])
    assert b"".join(VOCABULARIES[name][id_] for id_ in ids) == text.encode()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    made=st.lists(st.text("abc", min_size=2, max_size=5).map(str.encode), unique=True),
    text=st.text("abc", max_size=24),
)
def test_any_order_of_ranks_is_kept(made: Sequence[bytes], text: str) -> None:
    """No token need be made of tokens that come before it."""
    tokens = [*made, *BYTES]
    rank_of = {token: rank for rank, token in enumerate(tokens)}
    assert ids_of(byte_pairs(tokens), text) == reference(text, rank_of)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kimi")
    tokenizer_write(path, VOCABULARIES["learned"])
    (path / "tokenization_kimi.py").write_text("raise SystemExit('never run')\n", encoding="utf-8")
    return path


FIRST = len(VOCABULARIES["learned"])


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_dir(folder)


def test_names_and_sizes(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == FIRST + 256
    assert tokenizer.bos_id is None  # texts begin without one, as the published program has it
    assert tokenizer.eos_ids == {FIRST + 1, FIRST + 2}
    assert tokenizer.token_name(FIRST + 3) == ("<|im_user|>", b"")
    assert tokenizer.token_name(FIRST + 6) == (f"<|reserved_token_{FIRST + 6}|>", b"")
    assert tokenizer.token_name(FIRST + 13) == ("<|tool_call_begin|>", b"<|tool_call_begin|>")
    with pytest.raises(TokenizerError, match="no fill-in-the-middle tokens"):
        tokenizer.fim_prompt("a", "b")


def test_a_folder_may_ask_for_the_token_at_the_beginning(tmp_path: Path) -> None:
    tokenizer_write(tmp_path, BYTES, add_bos_token=True)
    assert Tokenizer.from_dir(tmp_path).encode("a", add_bos=True) == [256, 97]


def test_tokens_of_the_settings_are_read_where_the_template_writes_them(tokenizer: Tokenizer) -> None:
    for place, name in (CONTROL | SPELLED).items():
        assert tokenizer.encode(f"a{name}b", allow_special=True) == [
            *tokenizer.encode("a"), FIRST + place, *tokenizer.encode("b"),
        ]  # fmt: skip


@settings(max_examples=80, deadline=None, derandomize=True)
@given(parts=st.lists(st.one_of(MIXED, st.sampled_from([*CONTROL.values(), *SPELLED.values()])), max_size=5))
def test_a_callers_text_is_text(tokenizer: Tokenizer, parts: list[str]) -> None:
    text = "".join(parts).replace(MARK, "")
    ids = tokenizer.encode(text)
    assert max(ids, default=0) < FIRST
    assert tokenizer.decode(ids) == text
    said = tokenizer.encode_chat([{"role": "user", "content": text}])
    user, middle, end, assistant = (FIRST + place for place in (3, 17, 2, 4))
    word = tokenizer.encode
    expected = [user, *word("user"), middle, *ids, end, assistant, *word("assistant"), middle]
    assert said == expected


def test_the_librarys_own_file_goes_first(folder: Path, tmp_path: Path, tiny_dir: Path) -> None:
    tokenizer_write(tmp_path, BYTES)
    (tmp_path / "tokenizer.json").write_bytes((tiny_dir / "tokenizer.json").read_bytes())
    assert Tokenizer.from_dir(tmp_path).vocab_size == 264


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"tokenizer_class": "OtherTokenizer"}, "only TikTokenTokenizer is known, not 'OtherTokenizer'"),
        ({"added_tokens_decoder": {"255": {"content": "<x>", "special": True}}}, "has id 255, expected 256"),
        ({"added_tokens_decoder": {"512": {"content": "<x>", "special": True}}}, "has id 512, expected 256"),
        ({"added_tokens_decoder": {"a": {"content": "<x>", "special": True}}}, "added_tokens_decoder"),
        ({"added_tokens_decoder": {"256": {"content": "", "special": True}}}, "added_tokens_decoder"),
        ({"added_tokens_decoder": {"256": {"content": 5, "special": True}}}, "added_tokens_decoder"),
        ({"added_tokens_decoder": {"256": {"content": "<x>"}}}, "added_tokens_decoder"),
        ({"added_tokens_decoder": {"256": "<x>"}}, "added_tokens_decoder"),
        ({"added_tokens_decoder": []}, "added_tokens_decoder"),
        (
            {"added_tokens_decoder": {str(id_): {"content": "<x>", "special": True} for id_ in (256, 257)}},
            "two tokens of one name",
        ),
    ],
)
def test_bad_settings_are_said(tmp_path: Path, changes: dict[str, object], found: str) -> None:
    tokenizer_write(tmp_path, BYTES, **changes)
    with pytest.raises(TokenizerError, match=found):
        Tokenizer.from_dir(tmp_path)


def test_bad_ranks_are_said(tmp_path: Path) -> None:
    tokenizer_write(tmp_path, BYTES)
    (tmp_path / "tiktoken.model").write_bytes(b"YQ== 0\n")
    with pytest.raises(TokenizerError, match=r"tiktoken\.model: not a usable list of ranks"):
        Tokenizer.from_dir(tmp_path)
