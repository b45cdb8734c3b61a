"""The corpus and its split: the same everywhere, disjoint, and free of what must not be trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from inference.train import corpus
from inference.train.corpus import SourceText, corpus_read, corpus_write, iter_corpus, split_of


@pytest.fixture(scope="module")
def texts() -> list[SourceText]:
    return list(iter_corpus())


def test_the_split_depends_on_the_name_alone() -> None:
    # Figures computed once with another program: a change of rule must fail here.
    assert [split_of(name) for name in ("operator.py", "textwrap.py", "topic/while", "json/__init__.py")] == [
        "heldout",
        "train",
        "heldout",
        "train",
    ]


def test_about_one_document_in_twenty_is_held_out(texts: list[SourceText]) -> None:
    held_out = sum(text.split == "heldout" for text in texts)
    assert 0.02 < held_out / len(texts) < 0.08


def test_tests_packages_and_copies_are_left_out(texts: list[SourceText]) -> None:
    names = [text.name for text in texts]
    assert "textwrap.py" in names
    assert "builtin/math" in names
    assert not [
        name for name in names if "site-packages" in name or "/tests/" in name or name.startswith("test/")
    ]
    assert len(set(names)) == len(names)
    assert len({text.text.strip() for text in texts}) == len(texts)


def test_written_splits_are_disjoint_and_repeatable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [SourceText(f"file{number}.py", f"value = {number}\n" * 9) for number in range(60)]
    monkeypatch.setattr(corpus, "_library_files", lambda: iter([*few, SourceText("copy.py", few[0].text)]))
    monkeypatch.setattr(corpus, "_topics", lambda: iter(()))
    monkeypatch.setattr(corpus, "_builtin_docs", lambda: iter(()))
    corpus_write(folder=tmp_path / "a")
    corpus_write(folder=tmp_path / "b")
    for name in ("train.jsonl", "heldout.jsonl", "manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    train = {text.name for text in corpus_read(folder=tmp_path / "a", split="train")}
    heldout = {text.name for text in corpus_read(folder=tmp_path / "a", split="heldout")}
    assert train | heldout == {text.name for text in few}
    assert not train & heldout
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert {item["name"] for item in manifest["documents"] if item["split"] == "heldout"} == heldout
