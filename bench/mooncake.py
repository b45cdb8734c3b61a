"""Mooncake's conversation trace, lengths scaled down so that one of its blocks is one page."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

BLOCK = 512
PAGE = 16
SCALE = BLOCK // PAGE


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """One request: when it came, the names of its prompt's blocks, scaled lengths in tokens."""

    arrival_s: float
    blocks: tuple[int, ...]
    prompt: int
    new: int

    def tokens(self) -> tuple[int, ...]:
        """Token ids that are alike where blocks are, and nowhere else."""
        ids = (block * PAGE + place for block in self.blocks for place in range(PAGE))
        return tuple(ids)[: self.prompt]


def trace_read(path: Path) -> list[TraceRequest]:
    """The requests in order of arrival. A prompt is not longer than its blocks, nor empty."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        requests = [_request(json.loads(line)) for line in lines]
    return sorted(requests, key=lambda request: request.arrival_s)


def _request(line: dict[str, object]) -> TraceRequest:
    match line:
        case {
            "timestamp": int(arrival_ms),
            "input_length": int(prompt),
            "output_length": int(new),
            "hash_ids": list(blocks),
        }:
            return TraceRequest(
                arrival_s=arrival_ms / 1000,
                blocks=tuple(int(block) for block in blocks),
                prompt=max(1, min(round(prompt / SCALE), len(blocks) * PAGE)),
                new=max(1, round(new / SCALE)),
            )
    raise ValueError(f"not a line of the trace: {line!r:.200}")
