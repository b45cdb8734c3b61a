"""Question/answer pairs from the standard library's docstrings, and their layout as chat documents."""

from __future__ import annotations

import ast
import random
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from tokenizers import Tokenizer

from inference.train import questions
from inference.train.corpus import SourceText
from inference.train.library import Entry, entries_of, first_paragraph, user_name
from inference.train.packing import Document
from inference.train.seeds import seeded
from inference.train.vocabulary import SpecialIds

_RARE = ("idlelib", "lib2to3", "distutils", "turtledemo", "tkinter", "turtle", "pydoc", "ensurepip")
_COMMON_MODULES = {
    "argparse", "base64", "bisect", "collections", "contextlib", "copy", "csv", "dataclasses",
    "datetime", "dict", "enum", "fractions", "functools", "glob", "hashlib", "heapq", "io", "itertools",
    "json", "list", "logging", "math", "os", "pathlib", "pprint", "random", "re", "set", "shlex",
    "shutil", "statistics", "str", "string", "struct", "subprocess", "sys", "tempfile", "textwrap",
    "threading", "time", "timeit", "tuple", "uuid",
}  # fmt: skip
_NOT_VERBS = ("A", "An", "The", "This", "If", "Like", "For")
_SELF_REPEATS = 15
_COMMON_QUESTIONS = 7
_RARE_SHARE = 0.2
_WRITTEN_SHARE = 0.25
_CODE_CHARACTERS_MAX = 700


@dataclass(frozen=True, slots=True)
class Pair:
    """One question and its answer."""

    question: str
    answer: str


def pairs_make(texts: Sequence[SourceText], *, seed: int = 7) -> list[Pair]:
    """Pairs about all that `texts` document, module-level names more often, plus nano's own introduction."""
    rng = seeded(seed)
    entries: dict[str, Entry] = {}
    for source in texts:
        for entry in entries_of(source):
            named = replace(entry, name=user_name(entry.name))
            known = entries.get(named.name)
            if not named.name.startswith(_RARE) and (known is None or not known.signature):
                entries[named.name] = named
    pairs = [pair for entry in entries.values() for pair in _about(entry, rng)]
    pairs += [pair for source in texts for pair in _written(source, rng)]
    pairs += [Pair(*item) for item in questions.SELF for _ in range(_SELF_REPEATS)]
    return pairs


def chat_documents(pairs: Iterable[Pair], tokenizer: Tokenizer, *, seed: int = 7) -> list[Document]:
    """Pairs as chat documents, of which only the answer is learned.

    Some have a system message, some an earlier turn.
    """
    rng, special = seeded(seed), SpecialIds.of(tokenizer)
    documents: list[Document] = []
    earlier: list[int] = []
    for turn in _turns(pairs, tokenizer, special):
        prompt = [special.bos]
        if rng.random() < 0.1:
            prompt += _ids(tokenizer, rng.choice(questions.SYSTEM))
        if rng.random() < 0.15:
            prompt += earlier
        learn_from = len(prompt) + turn.index(special.assistant) + 1
        documents.append(Document([*prompt, *turn], learn_from=learn_from))
        earlier = turn
    return documents


def _about(entry: Entry, rng: random.Random) -> Iterator[Pair]:
    """The questions asked about one entry: many for what people use most, at most one for the rest."""
    common = is_common(entry.name)
    templates: list[tuple[str, str]] = []
    if entry.kind == "module":
        templates = [(template, entry.summary) for template in questions.MODULE]
    else:
        templates = [(template, entry.summary) for template in questions.WHAT]
        if entry.signature:
            block = f"```python\n{entry.signature}\n```"
            templates += [(template, block) for template in questions.SIGNATURE]
            templates += [(template, f"{block}\n{entry.summary}") for template in questions.USE]
    if common:
        others = min(len(templates), _COMMON_QUESTIONS) - 1
        chosen = [templates[0], *rng.sample(templates[1:], others)]
    else:
        chosen = rng.sample(templates, 1) if rng.random() < _RARE_SHARE else []
    for template, answer in chosen:
        yield Pair(template.format(name=entry.name, kind=entry.kind), answer)
    if common and entry.kind == "function" and (task := _task(entry.summary)):
        question = rng.choice(questions.TASK).format(task=task)
        yield Pair(question, f"Use `{entry.name}`. {entry.summary}")


def is_common(name: str) -> bool:
    """Whether users often ask about `name`: built-ins and what the best-known modules offer directly."""
    module, _, rest = name.replace("os.path.", "os.").partition(".")
    return rest.count(".") == 0 and (not rest or module in _COMMON_MODULES)


def _task(summary: str) -> str:
    """`Remove any …` as `remove any …`; "" when the summary is not a short imperative."""
    sentence = summary.split(". ", maxsplit=1)[0].rstrip(".").replace("`", "")
    first = sentence.split(" ", 1)[0]
    imperative = first.isalpha() and first.istitle() and not first.endswith("s")
    usable = imperative and 12 < len(sentence) < 90 and first not in _NOT_VERBS
    return sentence[0].lower() + sentence[1:] if usable else ""


def _written(source: SourceText, rng: random.Random) -> Iterator[Pair]:
    """A share of the short documented functions as "write it" pairs."""
    if not source.name.endswith(".py") or source.name.startswith(_RARE):
        return
    try:
        tree = ast.parse(source.text)
    except SyntaxError:
        return
    lines = source.text.split("\n")
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        if rng.random() > _WRITTEN_SHARE:
            continue
        summary = first_paragraph(ast.get_docstring(node) or "", characters_max=160)
        code = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.end_lineno]))
        if summary and code.startswith("def ") and len(code) <= _CODE_CHARACTERS_MAX:
            question = rng.choice(questions.WRITE).format(short=node.name, summary=summary)
            yield Pair(question, f"```python\n{code.rstrip()}\n```")


def _turns(pairs: Iterable[Pair], tokenizer: Tokenizer, special: SpecialIds) -> Iterator[list[int]]:
    """Each pair as `User question Assistant answer EOS`."""
    held = list(pairs)
    asked = tokenizer.encode_batch_fast([pair.question for pair in held], add_special_tokens=False)
    answered = tokenizer.encode_batch_fast([pair.answer for pair in held], add_special_tokens=False)
    for question, answer in zip(asked, answered, strict=True):
        yield [special.user, *question.ids, special.assistant, *answer.ids, special.eos]


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
