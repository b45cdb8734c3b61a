"""`rank_pattern` and `alpha_pattern` are read by PEFT's own rule, and no key can hold the engine up."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils.other import get_pattern_key

from inference.adapters.patterns import compile_pattern

MODULES = [
    f"model.layers.{layer}.{name}"
    for layer in (0, 1, 10)
    for name in (
        *("self_attn.q_proj", "self_attn.q_a_proj", "self_attn.o_proj"),
        *("mlp.experts.3.down_proj", "mlp.experts.13.down_proj", "mlp.shared_experts.up_proj"),
    )
]
KEYS = [
    r"layers\.0\.self_attn\.q_proj",
    r"model.layers.\d+.self_attn.q_proj",
    ".*q_proj",
    "q_proj|o_proj",
    "^q_proj",
    "^model.layers.0.self_attn.q_proj",
    "q_proj",
    "self_attn.q_proj",
    "model.layers.1.self_attn.q_proj",
    "proj",
    "attn.q_proj",
    ".q_proj",
    "q_proj$",
    r".*\.(q|o)_proj",
    "model.layers.[01].self_attn.(?:q|q_a)_proj",
    r"mlp\.experts\.\d{2}\.down_proj",
    "layers.0.mlp..*",
    r"experts\.1?3\.down\_proj",
    "",
    "|q_proj",
    "mlp.experts.[^1]+down_proj",
]


def theirs(keys: list[str], module: str) -> int | None:
    return {key: at for at, key in enumerate(keys)}.get(get_pattern_key(keys, module))


def ours(keys: list[str], module: str) -> int | None:
    pattern = compile_pattern({key: at for at, key in enumerate(keys)}, MODULES)
    found = pattern.get(module, -1)
    return None if found == -1 else found


@pytest.mark.parametrize("key", KEYS)
def test_a_key_matches_what_peft_says_it_does(key: str) -> None:
    assert [ours([key], module) for module in MODULES] == [theirs([key], module) for module in MODULES]


def test_the_keys_are_not_all_alike() -> None:
    matched = [tuple(ours([key], module) is not None for module in MODULES) for key in KEYS]
    assert len(set(matched)) > 8
    assert any(any(row) for row in matched)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(KEYS), unique=True, max_size=5), st.sampled_from(MODULES))
def test_the_first_of_several_keys_counts(keys: list[str], module: str) -> None:
    assert ours(keys, module) == theirs(keys, module)


PIECES = [
    "q",
    "_",
    "proj",
    ".",
    r"\.",
    ".*",
    r"\d+",
    "[a-z_]+",
    "(",
    "(?:",
    ")",
    "|",
    "^",
    "$",
    "o?",
    "model",
    "{2}",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=7).map("".join), st.sampled_from(MODULES))
def test_any_key_is_refused_or_means_what_it_means_to_peft(key: str, module: str) -> None:
    try:
        found = ours([key], module)
    except ValueError:
        return
    assert found == theirs([key], module)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        *(
            (key, "none of the regular expressions")
            for key in ("(a+)+", "(.*)*x", r"(a)\1", "(?=q)q", "(?i)Q")
        ),
        *(
            (key, "none of the regular expressions")
            for key in ("a)|(b", "a**", "[[a]", "[a--z]", "q\n", "a{,9}")
        ),
        ("[z-a]", "no regular expression"),
        ("a{3,2}", "no regular expression"),
        ("(a", "no regular expression"),
        ("q" * 257, "more than 256"),
        (".*" * 6 + "x", "too long"),
        ("(.|.)" * 40 + "x", "too long"),
        (".?" * 60 + "x", "too long"),
        ("." * 3 + ".{0,50}" * 6 + "x", "too long"),
    ],
)
def test_keys_that_do_not_compile_or_may_run_away_are_refused(key: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message) if message != "too long" else message):
        compile_pattern({"q_proj": 1, key: 2}, MODULES)


def test_the_number_of_keys_is_bounded_by_that_of_the_modules() -> None:
    names = [f"model.layers.{layer}.self_attn.q_proj" for layer in range(400)]
    each = dict.fromkeys(names, 8)
    assert compile_pattern(each, names).get(names[-1], 4) == 8
    with pytest.raises(ValueError, match="too long on 400 modules"):
        compile_pattern({f"{name}{at}": 8 for name in names for at in range(100)}, names)
