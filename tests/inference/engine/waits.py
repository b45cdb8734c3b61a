"""How long a request may be in the engine when nobody is starved."""

from __future__ import annotations

from dataclasses import dataclass

from inference.engine.types import EngineConfig, GenerationRequest

PASSED = 3  # two was the most; with aging that is off, twice as slow or without end it is four and more


@dataclass(slots=True)
class _Wait:
    rank: float
    since: int
    steps: int  # its own and those of all who may come first
    begun: bool = False
    latest: int = -1  # turn in which somebody began whose turn is later
    passed: int = 0  # how many such turns there were


class Waits:
    """Bounds the steps from each request's arrival to its end, and who may begin before him.

    By the published rule the time of arrival counts, moved by priority times `aging_s`: once he has waited
    for `aging_s` times what a better priority has before his, newcomers of that priority are behind him.
    From then on only those who were there already go first. So nobody who is behind him by the rule may begin
    before him; but while a page that he will share is being filled he lets others pass, for `PASSED` turns at
    most.

    Every step brings those forward who go first. So nobody is there for longer than it would take to serve,
    one after the other, whoever was there when he came, whoever came later and goes first by the published
    rule (arrival moved by priority times `aging_s`), and himself. A request is read once, and once more when
    it was put back. One whose profile is left for dynamic routing may wait once for a full batch.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._present: dict[str, _Wait] = {}
        self._work: dict[str, int] = {}
        self._longest = 0

    def arrive(self, name: str, request: GenerationRequest, now: int) -> None:
        """`request` is submitted as `name` before the step numbered `now`."""
        work, rank = self._steps(request), now + request.priority * self._config.aging_s
        self._longest = max(self._longest, work)
        for other in self._present.values():
            if rank < other.rank:
                other.steps += work
        self._work[name] = work
        steps = sum(self._work.values())
        if request.routing is not None:
            steps += self._config.max_running * self._longest
        self._present[name] = _Wait(rank, now, steps)

    def begin(self, name: str, now: int) -> None:
        """It is admitted in the step `now`, perhaps not for the first time."""
        mine = self._present[name]
        if mine.begun:
            return
        mine.begun = True
        for other in self._present.values():
            if not other.begun and other.rank < mine.rank and other.latest != now:
                other.latest = now
                other.passed += 1

    def end(self, name: str, now: int) -> None:
        """It has left with the step `now`, which must not be too late."""
        wait = self._present.pop(name)
        del self._work[name]
        assert wait.passed <= PASSED, f"{name} was passed {wait.passed} times by those whose turn is later"
        assert now - wait.since < wait.steps, f"{name} took {now - wait.since} steps of {wait.steps}"

    def _steps(self, request: GenerationRequest) -> int:
        made = request.params.max_tokens
        tokens = len(request.prompt_token_ids) + made
        return made + 2 * -(-tokens // self._config.step_token_budget)
