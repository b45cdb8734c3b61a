"""Azure's chat trace of one hour (Azure/AzurePublicDataset, CC-BY 4.0), lengths scaled down."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request: when it came, and its lengths in tokens."""

    arrival_s: float
    prompt: int
    new: int


def chat_read(path: Path, *, scale: int = 1) -> list[ChatRequest]:
    """The requests in order of arrival, counted from the first one; all lengths divided by `scale`, but 2 at
    least.
    """
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        lines = [
            (_seconds(line["TIMESTAMP"]), int(line["ContextTokens"]), int(line["GeneratedTokens"]))
            for line in csv.DictReader(file)
        ]
    lines.sort()
    return [
        ChatRequest(at - lines[0][0], max(round(prompt / scale), 2), max(round(new / scale), 2))
        for at, prompt, new in lines
    ]


def _seconds(stamp: str) -> float:
    """`2023-11-16 18:15:46.6805900`: seven decimals, of which the clock here knows six."""
    return datetime.fromisoformat(stamp[:26]).replace(tzinfo=UTC).timestamp()
