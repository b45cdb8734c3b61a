"""Requests that wait, in the order in which they go. No clock: the caller says what time it is."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from heapq import heappop, heappush
from operator import attrgetter

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
    """Which requests have waited too long for their beginning."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Sequence]] = []

    def add(self, sequence: Sequence) -> None:
        """Watch a request that was just submitted, if it has a deadline."""
        deadline_s = sequence.request.deadline_s
        if deadline_s is not None:
            heappush(self._heap, (sequence.submitted_s + deadline_s, sequence.arrival, sequence))

    def pop(self, now_s: float) -> list[Sequence]:
        """Requests whose deadline has passed before they began or ended, each once."""
        late: list[Sequence] = []
        while self._heap and self._heap[0][0] <= now_s:
            _, _, sequence = heappop(self._heap)
            if not sequence.begun and sequence.finish_reason is None:
                late.append(sequence)
        return late
