"""Requests that wait, in the order in which they go. No clock: the caller says what time it is."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from operator import attrgetter, itemgetter

from inference.engine.sequence import Sequence

_RANK = attrgetter("rank")


class RankedList:
    """Sequences in order of rank, which is unique."""

    def __init__(self) -> None:
        self._items: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._items)

    def __getitem__(self, place: int) -> Sequence:
        return self._items[place]

    def __contains__(self, sequence: Sequence) -> bool:
        place = bisect_left(self._items, sequence.rank, key=_RANK)
        return place < len(self._items) and self._items[place] is sequence

    def add(self, sequence: Sequence) -> None:
        insort(self._items, sequence, key=_RANK)

    def remove(self, sequence: Sequence) -> None:
        """Raises `ValueError` when it is not there."""
        if sequence not in self:
            raise ValueError(f"request {sequence.request.request_id} is not here")
        del self._items[bisect_left(self._items, sequence.rank, key=_RANK)]


class Deadlines:
    """Which requests have waited too long for their beginning. Those that ended are not kept: a deadline may
    be days away, and a request holds its prompt.
    """

    def __init__(self) -> None:
        self._items: list[tuple[float, int, Sequence]] = []  # arrivals are unique: sequences are not compared

    def __len__(self) -> int:
        return len(self._items)

    def add(self, sequence: Sequence) -> None:
        """Watch a request that was just submitted, if it has a deadline."""
        item = _due(sequence)
        if item is not None:
            insort(self._items, item)

    def remove(self, sequence: Sequence) -> None:
        """Watch a request no longer; one that is not watched is no error."""
        item = _due(sequence)
        if item is None:
            return
        place = bisect_left(self._items, item)
        if place < len(self._items) and self._items[place][2] is sequence:
            del self._items[place]

    def pop(self, now_s: float) -> list[Sequence]:
        """Requests whose deadline has passed before they began, each once."""
        count = bisect_right(self._items, now_s, key=itemgetter(0))
        passed, self._items = self._items[:count], self._items[count:]
        return [sequence for _, _, sequence in passed if not sequence.begun]


def _due(sequence: Sequence) -> tuple[float, int, Sequence] | None:
    """When a request must have begun, and the request; None if it has no deadline."""
    deadline_s = sequence.request.deadline_s
    return None if deadline_s is None else (sequence.submitted_s + deadline_s, sequence.arrival, sequence)
