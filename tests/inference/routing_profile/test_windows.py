from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from inference.routing.profile import ProfileError
from inference.routing_profile.windows import Reader, Window, routed_model, windows_cut
from inference.tokenizer import Tokenizer


def test_windows_hold_every_token_once_after_their_own_beginning(tiny_dir: Path) -> None:
    tokenizer = Tokenizer.from_dir(tiny_dir)
    text = "abc " * 100
    windows = windows_cut([text, "x", text], tokenizer, length=64)
    assert all(window.tokens[0] == tokenizer.bos_id for window in windows)
    assert all(window.prompt == len(window.tokens) // 2 for window in windows)
    assert [token for window in windows for token in window.tokens[1:]] == tokenizer.encode(text + text)
    with pytest.raises(ProfileError, match="shorter than"):
        windows_cut(["x", ""], tokenizer, length=64)


def test_reading_in_parts_gives_the_logits_of_reading_at_once(tiny_dir: Path) -> None:
    model = routed_model(tiny_dir, "float32")
    window = Window(tuple(range(10, 60)), 25)
    reader = Reader(model, length=50)
    whole_TV = reader.read(reader.batch(window, 0, 50))
    reader.read(reader.batch(Window(tuple(range(100, 150)), 25), 0, 50))  # another in between
    first = reader.batch(window, 0, 25)
    reader.read(replace(first, last_S=first.last_S[-1:]))
    torch.testing.assert_close(reader.read(reader.batch(window, 25, 50)), whole_TV[25:], rtol=1e-4, atol=1e-4)
