"""The engine's loop: carry out commands, step, publish. It runs in a thread (`AsyncEngine`) or in a process
of its own (`RemoteEngine`); only how commands arrive and reports leave differs.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import Protocol

from inference.engine.core import Engine
from inference.engine.types import EngineStats, FinishReason, TokenEvent
from inference.engine.wire import (
    AdapterChanged,
    Cancel,
    Command,
    DropAdapter,
    Ended,
    LoadAdapter,
    Report,
    Stepped,
    Submit,
)

_log = logging.getLogger(__name__)


class FrontGoneError(Exception):
    """Nobody is left to serve."""


class Line(Protocol):
    """The loop's connection to its front. Both methods raise FrontGoneError."""

    def take(self, *, wait: bool) -> list[Command]:
        """All commands that have arrived; at least one if `wait`."""

    def publish(self, report: Report) -> None:
        """Hand on a report, waiting while the front is too far behind."""


class EngineLoop:
    """Runs `engine` until it is told to stop, its own code fails, or its front is gone.

    A failure outside the model ends the requests in flight as "lost" and the loop goes on; a failure to
    carry out a command ends the loop. The engine is closed at the end, in whatever way it comes.
    """

    def __init__(self, engine: Engine, line: Line) -> None:
        self._engine = engine
        self._line = line
        self._waiting_s = self._stepping_s = self._publishing_s = 0.0

    def run(self) -> FinishReason:
        """Returns how the requests in flight ended: `cancelled`, or `lost` after a failure."""
        try:
            reason = self._turn_to_the_end()
            self._line.publish(Ended(self._engine.end_all(reason), self._stats(), reason))
            return reason
        finally:
            self._engine.close()

    def _turn_to_the_end(self) -> FinishReason:
        try:
            self._turn_until_stopped()
        except FrontGoneError:
            raise
        except Exception:
            _log.exception("the engine's loop ends")
            return "lost"
        return "cancelled"

    def _turn_until_stopped(self) -> None:
        clock = time.perf_counter
        began = clock()
        while self._obey():
            obeyed = clock()
            events = self._step() if self._engine.has_work else []
            stepped = clock()
            self._waiting_s += obeyed - began
            self._stepping_s += stepped - obeyed
            self._line.publish(Stepped(events, self._stats()))
            began = clock()
            self._publishing_s += began - stepped

    def _obey(self) -> bool:
        """Carry out all commands posted so far, waiting for one when there is nothing else to do; False at
        the end.
        """
        for command in self._line.take(wait=not self._engine.has_work):
            match command:
                case Submit(request):
                    self._engine.submit(request)
                case Cancel(request_id):
                    self._engine.cancel(request_id)
                case LoadAdapter() | DropAdapter():
                    self._line.publish(AdapterChanged(self._change(command)))
                case _:
                    return False
        return True

    def _change(self, command: LoadAdapter | DropAdapter) -> str | None:
        try:
            if isinstance(command, LoadAdapter):
                self._engine.changes.load(command.name, command.folder)
            else:
                self._engine.changes.drop(command.name)
        except ValueError as error:
            return str(error)
        except Exception as error:  # what lies in a folder must not end the service
            _log.exception("adapter %s", command.name)
            return f"{type(error).__name__}: {error}"
        return None

    def _step(self) -> list[TokenEvent]:
        try:
            return self._engine.step()
        except Exception:
            _log.exception("the engine failed outside its model; all requests in flight are lost")
            return self._engine.end_all("lost")

    def _stats(self) -> EngineStats:
        return dataclasses.replace(
            self._engine.stats(),
            waiting_s=self._waiting_s,
            stepping_s=self._stepping_s,
            publishing_s=self._publishing_s,
        )
