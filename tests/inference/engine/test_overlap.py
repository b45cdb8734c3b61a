"""Grammar masks are computed beside the forward pass, not after it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from inference.engine.sampling.grammar import GrammarState
from inference.engine.types import Grammar
from tests.inference.engine.conftest import Table, serve

LIMIT_S = 20.0


def test_every_forward_pass_finds_the_mask_begun(
    table: Table, make_request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pass waits until the mask of the token that it leads to has been begun."""
    begun, late = threading.Event(), []
    fill, forward = GrammarState._fill, table.model.forward

    def filling(state: GrammarState, *arguments: Any) -> None:
        begun.set()
        fill(state, *arguments)

    def waiting(*arguments: Any) -> Any:
        if not late and not begun.wait(LIMIT_S):
            late.append("a forward pass")
        begun.clear()
        return forward(*arguments)

    monkeypatch.setattr(GrammarState, "_fill", filling)
    monkeypatch.setattr(table.model, "forward", waiting)
    one = make_request(1, 9, grammar=Grammar("regex", "[a-f]{6}"), max_tokens=6)
    engine = table.engine()
    events = serve(engine, [one])["r1"]
    engine.close()
    assert not late
    assert len("".join(event.text for event in events)) == 6
    assert engine.stats().steps == 6
