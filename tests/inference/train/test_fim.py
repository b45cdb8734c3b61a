"""Fill-in-the-middle: nothing is lost, and the layout is the family's."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from inference.train.fim import fim_ids, fim_prompt_ids, fim_split
from inference.train.vocabulary import SpecialIds

TEXTS = st.text(alphabet=st.sampled_from("ab \n\té€😀(:"), max_size=60)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(text=TEXTS, seed=st.integers(0, 999))
def test_the_three_parts_are_the_text(text: str, seed: int) -> None:
    infill = fim_split(text, random.Random(seed))
    assert infill.prefix + infill.middle + infill.suffix == text


def test_every_kind_of_hole_occurs() -> None:
    text = "def f(x):\n    y = x\n    return y\n\n\nprint(f(3))\n" * 3
    middles = [fim_split(text, random.Random(seed)).middle for seed in range(300)]
    assert any("\n" in middle for middle in middles)
    assert any(middle == "return y" for middle in middles)  # a line after its indentation
    assert any(middle == "    return y" for middle in middles)  # a whole line
    assert any("\n" not in middle and 0 < len(middle) < 4 for middle in middles)


def test_layout_and_round_trip(tokenizer: Tokenizer) -> None:
    special = SpecialIds.of(tokenizer)
    infill = fim_split("def area(width, height):\n    return width * height\n", random.Random(5))
    ids = fim_ids(infill, tokenizer, special)
    assert ids[:2] == [special.bos, special.fim_begin]
    assert ids[-1] == special.eos
    hole, end = ids.index(special.fim_hole), ids.index(special.fim_end)
    assert tokenizer.decode(ids[2:hole]) == infill.prefix
    assert tokenizer.decode(ids[hole + 1 : end]) == infill.suffix
    assert tokenizer.decode(ids[end + 1 : -1]) == infill.middle
    assert fim_prompt_ids(infill, tokenizer, special) == ids[: end + 1]
