"""Segment files: finding them, reading them in order, cutting a torn end."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from inference.worker.journal.errors import JournalCorruptError

SUFFIX = ".jsonl"


@dataclass(slots=True)
class Segment:
    """A file with the entries from ``first_seq`` on; ``offsets`` are where their lines begin, in bytes."""

    path: Path
    first_seq: int
    offsets: array[int] = field(default_factory=lambda: array("Q"))
    size: int = 0

    @property
    def next_seq(self) -> int:
        """The sequence number after its last entry."""
        return self.first_seq + len(self.offsets)

    def add(self, length: int) -> None:
        """Take note of a line of ``length`` bytes at the end."""
        self.offsets.append(self.size)
        self.size += length

    def read(self, seq: int, count: int) -> list[bytes]:
        """Up to ``count`` lines from entry ``seq`` on."""
        index = seq - self.first_seq
        stop = min(index + count, len(self.offsets))
        end = self.offsets[stop] if stop < len(self.offsets) else self.size
        begin = self.offsets[index]
        with self.path.open("rb") as file:
            file.seek(begin)
            return file.read(end - begin).splitlines()


def segment_path(folder: Path, first_seq: int) -> Path:
    """The file for entries from ``first_seq`` on; names sort by sequence number."""
    return folder / f"{first_seq:020d}{SUFFIX}"


def segment_paths(folder: Path) -> list[Path]:
    """The segment files in order. Raises JournalCorruptError for a name that is none."""
    paths = sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
    for path in paths:
        if not path.stem.isdigit():
            raise JournalCorruptError(f"{path.name} is no journal segment")
    return paths


def lines_read(path: Path, *, last: bool) -> Iterator[bytes]:
    """The complete lines of a segment. Of the last segment, an incomplete end is cut off the file."""
    complete = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            complete += len(line)
            yield line
        torn = os.fstat(file.fileno()).st_size - complete
    if torn and not last:
        raise JournalCorruptError(f"{path.name} ends in the middle of an entry, and later segments exist")
    if torn:
        os.truncate(path, complete)
