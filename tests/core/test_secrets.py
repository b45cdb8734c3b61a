"""Secrets are recognisable, checkable, and kept only as digests."""

from __future__ import annotations

import hashlib

import pytest

from core.secrets import derive_token, digest_secret, looks_like_secret, new_secret, same_secret


def test_new_secret_is_recognised_and_shown_only_in_part() -> None:
    made = new_secret("sk")
    assert made.plain.startswith("tw-sk-")
    assert looks_like_secret(made.plain)
    assert made.digest == hashlib.sha256(made.plain.encode()).hexdigest() == digest_secret(made.plain)
    assert made.plain[12:-5] not in made.display
    assert made.plain not in repr(made.display)
    assert new_secret("sk").plain != made.plain


@pytest.mark.parametrize("position", [3, 6, 20, 69, -1])
def test_a_single_wrong_character_is_noticed(position: int) -> None:
    plain = list(new_secret("sk").plain)
    plain[position] = "0" if plain[position] != "0" else "1"
    assert not looks_like_secret("".join(plain))


@pytest.mark.parametrize("text", ["", "sk-abc", "tw-sk-", "tw-SK-" + "0" * 72, "tw-sk-" + "0" * 72 + "\n"])
def test_other_text_is_not_a_secret(text: str) -> None:
    assert not looks_like_secret(text)


@pytest.mark.parametrize("kind", ["", "x", "UP", "toolongkind", "a-b"])
def test_odd_kinds_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="kind"):
        new_secret(kind)


def test_derived_tokens_depend_on_every_part() -> None:
    token = derive_token("master", "dispatch", "wrk_1")
    assert token == derive_token("master", "dispatch", "wrk_1")
    others = {
        derive_token("other", "dispatch", "wrk_1"),
        derive_token("master", "dispatch", "wrk_2"),
        derive_token("master", "dispatchwrk_1"),
        derive_token("master", "dispatch", "wrk", "_1"),
    }
    assert len(others) == 4
    assert token not in others


def test_comparison_copes_with_any_text() -> None:
    assert same_secret("ä", "ä")
    assert not same_secret("a", "ä")
    assert not same_secret("a", "")
