"""The units of work that every engine is timed on, and the conversation with a process that does them.

A side is one engine with one set of weights in a process of its own, so that its memory can be told apart and
its threads are its own. It reads one JSON object a line from standard input and answers one a line on
standard output, beginning with `{"ready": seconds to load}` and what else it tells of itself.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

_PROBE_PROMPT, _PROBE_NEW = 16, 2


@dataclass(frozen=True, slots=True)
class Work:
    """Decode: tokens per second of all sequences while each of `batch` grows from `prompt` by `new` tokens.
    Prefill: prompt tokens per second from the prompt to its first new token.
    """

    kind: Literal["decode", "prefill"]
    batch: int
    prompt: int
    new: int

    @property
    def name(self) -> str:
        if self.kind == "prefill":
            return f"prefill, {self.prompt} tokens"
        return f"decode, batch {self.batch}"

    @property
    def size(self) -> str:
        """What there is to do."""
        sequences = "one sequence" if self.batch == 1 else f"{self.batch} sequences"
        return f"{sequences} of {self.prompt} tokens and {self.new} new"

    @property
    def context(self) -> int:
        """Mean length of the context while the clock runs."""
        return self.prompt // 2 if self.kind == "prefill" else self.prompt + self.new // 2

    @property
    def probe(self) -> Work:
        """A short work of the same kind and batch, whose rate foretells the time of this one."""
        if self.kind == "prefill":
            return Work("prefill", 1, min(self.prompt, 4 * _PROBE_PROMPT), 1)
        return Work("decode", self.batch, min(self.prompt, _PROBE_PROMPT), min(self.new, _PROBE_NEW))

    def shortened(self, new: int) -> Work:
        """The same with at most `new` tokens around the same mean context."""
        if self.kind == "prefill" or self.new <= new:
            return self
        return Work(self.kind, self.batch, self.prompt + (self.new - new) // 2, new)

    def prompts(self, vocabulary: int, salt: int = 0) -> list[list[int]]:
        """Token ids of each sequence, no two alike in their beginnings."""
        first = salt * 611

        def token(sequence: int, place: int) -> int:
            mixed = first + sequence * 7919 + place * 104729 + place * place * 31
            return mixed % (vocabulary - 16) + 16

        return [[token(i, j) for j in range(self.prompt)] for i in range(self.batch)]


class Side(Protocol):
    """An engine that is loaded and can be timed."""

    def rate(self, work: Work) -> float:
        """Tokens per second."""
        ...


def serve(load: Callable[[], tuple[Side, Mapping[str, float]]]) -> None:
    """Load, then answer works until the input ends. What libraries print goes to the error stream.

    `load` returns the side and figures of its own, of which `ready` is the seconds that its loading took.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    side, figures = load()
    print(json.dumps(dict(figures)), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps({"rate": side.rate(Work(**json.loads(line)))}), file=answers, flush=True)


def line_of(work: Work) -> str:
    return json.dumps(asdict(work)) + "\n"
