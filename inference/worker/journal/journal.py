"""The journal a worker writes: append, look up, page through."""

from __future__ import annotations

import contextlib
import fcntl
import os
from bisect import bisect_right
from pathlib import Path
from typing import Any

from inference.messages import JournalEntry, SignedEntry, message_hash
from inference.worker.journal.errors import DuplicateEntryError, JournalError, JournalLockedError
from inference.worker.journal.lines import line_decode, line_encode
from inference.worker.journal.recovery import journal_recover
from inference.worker.journal.segments import Segment, segment_path
from inference.worker.journal.syncer import Syncer
from inference.worker.signing import WorkerKey

SEGMENT_BYTES = 8 * 1024 * 1024


class Journal:
    """One writer, any number of readers in the same process.

    After a failed write or sync ``broken`` says why and every further append is refused: a receipt must
    never leave for an entry that may be lost.
    """

    def __init__(self, folder: Path, key: WorkerKey, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = key
        self._segment_bytes = segment_bytes
        self._lock = _lock_take(folder / "lock")
        self.broken: str | None = None
        self._descriptor = -1
        found = journal_recover(folder, key.public_text)
        self._segments = found.segments
        self._seq_by_request = found.seq_by_request
        self._last_hash = found.last_hash
        self.next_seq = found.next_seq
        self._syncer = Syncer(self._sync_failed)
        if not self._segments:
            self._segments.append(Segment(segment_path(folder, 0), 0))
        self._open(self._segments[-1])

    def append(self, **fields: Any) -> SignedEntry:
        """Sign and write the next entry; ``fields`` are JournalEntry's but ``seq`` and ``prev_hash``.

        On return the operating system has the entry. Raises DuplicateEntryError or JournalError.
        """
        if self.broken is not None:
            raise JournalError(self.broken)
        if fields["request_id"] in self._seq_by_request:
            raise DuplicateEntryError(f"request {fields['request_id']} has an entry already")
        entry = JournalEntry(seq=self.next_seq, prev_hash=self._last_hash, **fields)
        message = entry.signing_bytes()
        signed = SignedEntry(entry=entry, signature=self._key.sign(message))
        self._write(line_encode(signed))
        self._seq_by_request[entry.request_id] = entry.seq
        self.next_seq += 1
        self._last_hash = message_hash(message)
        return signed

    def find(self, request_id: str) -> SignedEntry | None:
        """The entry of a request, or None."""
        seq = self._seq_by_request.get(request_id)
        return None if seq is None else self.page(after_seq=seq - 1, limit=1)[0]

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._seq_by_request

    def page(self, *, after_seq: int, limit: int) -> list[SignedEntry]:
        """Up to ``limit`` entries that follow ``after_seq`` (-1 for the first), in order."""
        seq, found = max(0, after_seq + 1), list[SignedEntry]()
        while seq < self.next_seq and len(found) < limit:
            index = bisect_right(self._segments, seq, key=lambda segment: segment.first_seq) - 1
            lines = self._segments[index].read(seq, limit - len(found))
            found += map(line_decode, lines)
            seq += len(lines)
        return found

    def close(self) -> None:
        """Bring everything to the disk and let go of the folder."""
        self._syncer.close()
        os.close(self._descriptor)
        os.close(self._lock)

    def _write(self, line: bytes) -> None:
        if self._segments[-1].size >= self._segment_bytes:
            self._rotate()
        segment = self._segments[-1]
        try:
            _write_whole(self._descriptor, line)
        except OSError as error:
            self._undo(segment.size, error)
        segment.add(len(line))
        self._syncer.wake()

    def _undo(self, size: int, error: OSError) -> None:
        """Take back a half-written line, so that the file stays readable; then refuse to go on."""
        self.broken = f"the journal cannot be written: {error.strerror}"
        with contextlib.suppress(OSError):  # the next start cuts it off
            os.ftruncate(self._descriptor, size)
        raise JournalError(self.broken) from error

    def _rotate(self) -> None:
        segment = Segment(segment_path(self._folder, self.next_seq), self.next_seq)
        full = self._descriptor
        self._open(segment)
        os.close(full)
        self._segments.append(segment)

    def _open(self, segment: Segment) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor = os.open(segment.path, flags, 0o600)
        _folder_sync(self._folder)
        self._syncer.follow(self._descriptor)

    def _sync_failed(self, error: OSError) -> None:
        self.broken = f"the journal cannot be brought to disk: {error.strerror}"


def _lock_take(path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise JournalLockedError("another worker writes to this state directory") from None
    return descriptor


def _write_whole(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _folder_sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
