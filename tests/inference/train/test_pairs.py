"""Question/answer pairs say what the docstrings say, in the chat layout."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

from inference.train.corpus import SourceText
from inference.train.library import entries_of, first_paragraph, user_name
from inference.train.pairs import chat_documents, pairs_make
from inference.train.vocabulary import SpecialIds

SOURCE = SourceText(
    "posixpath.py",
    '''"""Common operations on POSIX pathnames."""


def join(a, *p):
    """Join two or more pathname components.

    More detail.
    """
    return a


def _private():
    """Not to be asked about."""


class Walker(object):
    """Walks over a tree of folders."""

    def step(self, depth=1):
        """Go one folder further."""
''',
)


def test_entries_have_signatures_and_first_paragraphs() -> None:
    entries = {entry.name: entry for entry in entries_of(SOURCE)}
    assert set(entries) == {"posixpath", "posixpath.join", "posixpath.Walker", "posixpath.Walker.step"}
    assert entries["posixpath.join"].signature == "def join(a, *p)"
    assert entries["posixpath.join"].summary == "Join two or more pathname components."
    assert entries["posixpath.Walker"].signature == "class Walker(object)"
    assert entries["posixpath.Walker.step"].kind == "method"


def test_names_are_those_users_import() -> None:
    assert user_name("posixpath.join") == "os.path.join"
    assert user_name("random.Random.shuffle") == "random.shuffle"
    assert user_name("json.dumps") == "json.dumps"


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        ("Return the end.\n\nMore.", "Return the end."),
        ("chain(*iterables) --> chain object\n\nReturn a chain.", "Return a chain."),
        ("S.find(sub) -> int\n\nReturn the lowest index", "Return the lowest index."),
        (">>> f()\n3", ""),
        ("", ""),
    ],
)
def test_a_docstring_becomes_one_sentence(doc: str, expected: str) -> None:
    assert first_paragraph(doc) == expected


def test_pairs_cover_functions_modules_and_the_model_itself() -> None:
    pairs = pairs_make([SOURCE])
    asked = {pair.question: pair.answer for pair in pairs}
    assert asked["What does os.path.join do?"] == "Join two or more pathname components."
    assert any("os.path module" in question or "os.path" in question for question in asked)
    assert "tokenworks-nano" in asked["Who are you?"]
    assert not any("_private" in question for question in asked)
    assert pairs == pairs_make([SOURCE])


def test_chat_documents_learn_the_answer_alone(tokenizer: Tokenizer) -> None:
    special = SpecialIds.of(tokenizer)
    pairs = pairs_make([SOURCE])
    for pair, document in zip(pairs, chat_documents(pairs, tokenizer), strict=True):
        assert document.ids[0] == special.bos
        assert document.ids[-1] == special.eos
        assert document.ids[document.learn_from - 1] == special.assistant
        assert tokenizer.decode(list(document.ids[document.learn_from : -1])) == pair.answer
