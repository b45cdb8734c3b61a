"""The loop's end."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from inference.engine.loop import EngineLoop, FrontGoneError
from inference.engine.types import Grammar
from inference.engine.wire import Command, Ended, Report, Stop, Submit


class Front:
    """Submits one request, then stops, leaves, or says something wrong."""

    def __init__(self, *commands: Command | None) -> None:
        self._commands = list(commands)
        self.reports: list[Report] = []

    def take(self, *, wait: bool) -> list[Command]:
        del wait
        command = self._commands.pop(0) if self._commands else None
        if command is None:
            raise FrontGoneError
        return [command]

    def publish(self, report: Report) -> None:
        self.reports.append(report)


@pytest.mark.parametrize("stops", [True, False])
def test_the_threads_of_grammars_end_with_the_loop(table: Any, make_request: Any, *, stops: bool) -> None:
    before = set(threading.enumerate())
    engine = table.engine()
    begun = set(threading.enumerate()) - before
    assert begun
    request = make_request(1, 5, grammar=Grammar("regex", "[a-f]{5,40}"), max_tokens=20)
    front = Front(Submit(request), Stop() if stops else None)
    if stops:
        assert EngineLoop(engine, front).run() == "cancelled"
        assert isinstance(front.reports[-1], Ended)
    else:
        with pytest.raises(FrontGoneError):
            EngineLoop(engine, front).run()
    assert not any(thread.is_alive() for thread in begun)


def test_a_loop_that_fails_has_lost_its_requests(table: Any, make_request: Any) -> None:
    engine = table.engine()
    front = Front(Submit(make_request(1, 5)), Submit("not a request"))  # type: ignore[arg-type]  # on purpose
    assert EngineLoop(engine, front).run() == "lost"
    (ended,) = [report for report in front.reports if isinstance(report, Ended)]
    assert [(event.request_id, event.finish_reason) for event in ended.events] == [("r1", "lost")]
