"""The bench of drafts: its prompts, its engines, and its figures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.speculation import (
    ALWAYS,
    DECIDED,
    NEW,
    PLAIN,
    PROMPT,
    SIDES,
    Answers,
    Setting,
    answers_measure,
    found_rows,
    prompts_cut,
    texts_apart,
)
from inference.models.loader import load_model
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write
from inference.tokenizer import Tokenizer
from inference.train.corpus import SourceText

GREEDY = Setting(0.0, 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny")
    random_checkpoint_write(path=path, config={**TINY_V3, "num_nextn_predict_layers": 1})
    return path


def test_prompts_are_beginnings_of_long_documents_that_are_held_out(folder: Path) -> None:
    tokenizer = Tokenizer.from_dir(folder)
    sources = [
        SourceText("operator.py", "x" * (PROMPT + NEW)),
        SourceText("json/decoder.py", "t" * (PROMPT + NEW)),
        SourceText("runpy.py", "short"),
    ]
    assert [source.split for source in sources] == ["heldout", "train", "heldout"]
    expected = tokenizer.encode("x" * (PROMPT - 1), add_bos=True)
    assert prompts_cut(sources, tokenizer) == [tuple(expected)]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_all_sides_write_the_same_text(folder: Path, temperature: float) -> None:
    model = load_model(folder, mtp=True)
    prompts = [(5, 6, 7), (9, 8, 7, 6), (20, 30)]
    setting = Setting(temperature, 2)
    found = {setting: answers_measure(model, prompts, setting, rounds=2, new=12)}
    assert texts_apart(found) == []
    sides = found[setting]
    assert all(len(answer) == 12 for runs in sides.values() for run in runs for answer in run.tokens)
    assert [run.drafted for run in sides[PLAIN]] == [0, 0]
    assert sides[ALWAYS][0].drafted >= 3 * 5
    assert sides[ALWAYS][0].accepted == sides[ALWAYS][1].accepted
    assert 1 <= sides[ALWAYS][0].per_step <= 2


def test_figures_of_answers_that_can_be_counted_by_hand() -> None:
    plain = Answers(((1, 2, 3, 4, 5), (6, 7, 8, 9, 10)), seconds=2.0, drafted=0, accepted=0)
    drafting = replace(plain, seconds=1.0, drafted=5, accepted=2)
    deciding = replace(plain, seconds=4.0, drafted=1, accepted=1)
    found = {GREEDY: {PLAIN: [plain], ALWAYS: [drafting], DECIDED: [deciding]}}
    step, share, always, decided = found_rows(found)
    assert step.value == pytest.approx(8 / 6)  # six steps of a row brought eight tokens
    assert step.fraction == pytest.approx(8 / 6 / 1.5)
    assert share.value == pytest.approx(0.4)
    assert (always.value, always.peer_value, always.ratio) == (10.0, 5.0, 2.0)
    assert decided.ratio == 0.5


def test_another_text_is_found() -> None:
    run = Answers(((1, 2, 3),), 1.0, 0, 0)
    other = replace(run, tokens=((1, 2, 4),))
    found = {GREEDY: {side: [run] for side in SIDES} | {DECIDED: [run, other]}}
    assert texts_apart(found) == [
        "greedy, batch 2, as the engine decides: not the text that is written without drafts"
    ]
