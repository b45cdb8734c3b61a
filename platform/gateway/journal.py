"""The gateway's local journal: every settlement, in the system's hands before the client's last byte.

Append-only JSONL segments in one folder. It is also the settler's queue: a cursor moves through it, and is
moved back to replay. A record survives the death of the process from the moment ``append`` returns.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import NamedTuple

_SUFFIX = ".jsonl"
_CURSOR_FILE = "cursor.json"


class JournalInUseError(RuntimeError):
    """Another process writes to this journal: two gateways were given one id."""


class Position(NamedTuple):
    """A byte in the journal."""

    segment: int
    offset: int


class Mark(NamedTuple):
    """How far everything is settled, and in which life and epoch of Redis."""

    position: Position
    server_run: str
    epoch: str


class Journal:
    """One folder, one writer (held by a lock until ``close``)."""

    def __init__(self, folder: Path, *, segment_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise JournalInUseError(f"{folder.name} is in use by another gateway process") from None
        segments = self.segments()
        self._segment = segments[-1] if segments else 1
        self._open()
        self._end_torn_line()

    @property
    def end(self) -> Position:
        """Where the next record will begin."""
        return Position(self._segment, self._size)

    def append(self, line: bytes) -> None:
        """Write one record (no line feed in it). Raises OSError; then nothing counts as written."""
        if self._size >= self._segment_bytes:
            self._rotate()
        data = line + b"\n"
        written = os.write(self._file, data)
        if written != len(data):
            os.ftruncate(self._file, self._size)
            raise OSError("the journal's disk is full")
        self._size += written

    def read(self, position: Position, limit: int) -> tuple[list[bytes], Position]:
        """Whole records from ``position`` on, about ``limit`` bytes, and the position after them."""
        if position.segment > self._segment:
            return [], self.end
        path = self._path(position.segment)
        if not path.exists():
            later = [segment for segment in self.segments() if segment > position.segment]
            return [], Position(later[0], 0) if later else self.end
        with path.open("rb") as file:
            file.seek(position.offset)
            data = file.read(limit)
            if data and b"\n" not in data:
                data += file.readline()
        whole = data[: data.rfind(b"\n") + 1]
        if whole:
            return whole.splitlines(), Position(position.segment, position.offset + len(whole))
        if position.segment < self._segment:
            return [], Position(position.segment + 1, 0)
        return [], position

    def segments(self) -> list[int]:
        """Numbers of the segments on disk, oldest first."""
        return sorted(int(path.stem) for path in self._folder.glob(f"*{_SUFFIX}"))

    def start_since(self, unix_s: float) -> Position:
        """A position from which every record written since ``unix_s`` is found."""
        segments = self.segments()
        recent = [segment for segment in segments if self._path(segment).stat().st_mtime >= unix_s]
        return Position(recent[0] if recent else self._segment, 0)

    def trim(self, position: Position, *, older_than_unix_s: float, bytes_max: int) -> int:
        """Delete settled segments (before ``position``) that are old, or exceed ``bytes_max``; how many."""
        removed, total = 0, 0
        for segment in reversed(self.segments()):
            info = self._path(segment).stat()
            total += info.st_size
            if segment >= position.segment or segment == self._segment:
                continue
            if info.st_mtime < older_than_unix_s or total > bytes_max:
                self._path(segment).unlink()
                removed += 1
        return removed

    def backlog_bytes(self, position: Position) -> int:
        """Bytes written and not yet settled."""
        total = -position.offset
        for segment in self.segments():
            if segment >= position.segment:
                with contextlib.suppress(FileNotFoundError):
                    total += self._path(segment).stat().st_size
        return max(0, total)

    def mark_save(self, mark: Mark) -> None:
        """Remember how far everything is settled; replaced whole or not at all."""
        partial = self._folder / f"{_CURSOR_FILE}.new"
        partial.write_text(json.dumps([*mark.position, mark.server_run, mark.epoch]))
        partial.replace(self._folder / _CURSOR_FILE)

    def mark_load(self) -> Mark:
        """The mark saved last; the journal's beginning when there is none."""
        first = (self.segments() or [self._segment])[0]
        with contextlib.suppress(FileNotFoundError, ValueError):
            segment, offset, run, epoch = json.loads((self._folder / _CURSOR_FILE).read_text())
            position = Position(int(segment), int(offset))
            return Mark(position if position <= self.end else Position(first, 0), str(run), str(epoch))
        return Mark(Position(first, 0), "", "")

    def close(self) -> None:
        """Give up the writer's lock."""
        os.fsync(self._file)
        os.close(self._file)
        os.close(self._lock)

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment:010d}{_SUFFIX}"

    def _rotate(self) -> None:
        """The next segment; the full one stays open until there is one, or its number would be another's."""
        full = self._file
        self._segment += 1
        try:
            self._open()
        except OSError:
            self._segment -= 1
            raise
        os.close(full)

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        self._file = os.open(self._path(self._segment), flags, 0o600)
        self._size = os.fstat(self._file).st_size

    def _end_torn_line(self) -> None:
        """A record cut short by a crash was never acted on: close its line, readers skip it."""
        if self._size and os.pread(self._file, 1, self._size - 1) != b"\n":
            self._size += os.write(self._file, b"\n")
