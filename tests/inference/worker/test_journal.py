"""The journal survives crashes at any byte, and tells when it was tampered with."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.messages import GENESIS_HASH, SignedEntry
from inference.worker.journal import journal as journal_module
from inference.worker.journal.errors import (
    DuplicateEntryError,
    JournalCorruptError,
    JournalError,
    JournalLockedError,
)
from inference.worker.journal.journal import Journal
from inference.worker.signing import WorkerKey, key_load, signature_is_valid


def entry_append(journal: Journal, number: int, **changes: Any) -> SignedEntry:
    fields = {
        "worker_id": "wrk_1",
        "request_id": f"req_{number}",
        "model": "m",
        "release_digest": "ab" * 32,
        "prompt_tokens": number,
        "cached_tokens": 0,
        "completion_tokens": 2,
        "finish_reason": "stop",
        "received_at_ms": 1,
        "first_token_at_ms": 2,
        "finished_at_ms": 3,
        "output_sha256": "cd" * 32,
    }
    return journal.append(**(fields | changes))


def filled(folder: Path, key: WorkerKey, count: int, segment_bytes: int = 1500) -> None:
    journal = Journal(folder, key, segment_bytes=segment_bytes)
    for number in range(count):
        entry_append(journal, number)
    journal.close()


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def test_entries_are_chained_and_signed(journal: Journal, key: WorkerKey) -> None:
    first, second = entry_append(journal, 0), entry_append(journal, 1)
    assert first.entry.prev_hash == GENESIS_HASH
    assert second.entry.prev_hash == first.entry.hash()
    assert (first.entry.seq, second.entry.seq) == (0, 1)
    for signed in (first, second):
        message = signed.entry.signing_bytes()
        assert signature_is_valid(public_text=key.public_text, message=message, signature=signed.signature)


def test_an_entry_is_in_the_file_when_append_returns(journal: Journal, tmp_path: Path) -> None:
    signed = entry_append(journal, 0)
    (segment,) = segments(tmp_path / "journal")
    assert orjson.loads(segment.read_bytes()) == signed.to_dict()
    assert segment.stat().st_mode & 0o777 == 0o600


def test_a_request_has_one_entry(journal: Journal) -> None:
    entry_append(journal, 0)
    with pytest.raises(DuplicateEntryError):
        entry_append(journal, 0)
    assert journal.next_seq == 1


def test_lookup_and_pages_cross_segments_and_restarts(tmp_path: Path, key: WorkerKey) -> None:
    folder = tmp_path / "many"
    filled(folder, key, 20)
    assert len(segments(folder)) > 3
    journal = Journal(folder, key, segment_bytes=1500)
    try:
        assert [signed.entry.seq for signed in journal.page(after_seq=-1, limit=100)] == list(range(20))
        assert [signed.entry.seq for signed in journal.page(after_seq=4, limit=9)] == list(range(5, 14))
        assert journal.page(after_seq=19, limit=5) == []
        assert [found.entry.seq for n in range(20) if (found := journal.find(f"req_{n}"))] == list(range(20))
        assert journal.find("req_x") is None
        assert "req_19" in journal
        continued = entry_append(journal, 20)
        assert continued.entry.prev_hash == journal.page(after_seq=18, limit=1)[0].entry.hash()
    finally:
        journal.close()


@settings(max_examples=40, derandomize=True, deadline=None)
@given(st.data())
def test_a_crash_at_any_byte_loses_at_most_the_entry_being_written(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    base = tmp_path_factory.mktemp("crash")
    key = key_load(base / "key.pem")
    filled(base / "journal", key, 7)
    last = segments(base / "journal")[-1]
    lines = last.read_bytes().splitlines(keepends=True)
    cut = data.draw(st.integers(0, sum(map(len, lines))))
    whole = sum(1 for n in range(1, len(lines) + 1) if sum(map(len, lines[:n])) <= cut)
    os.truncate(last, cut)
    expected = 7 - len(lines) + whole
    journal = Journal(base / "journal", key)
    try:
        assert journal.next_seq == expected
        entry_append(journal, 100)
    finally:
        journal.close()
    again = Journal(base / "journal", key)
    assert [signed.entry.seq for signed in again.page(after_seq=-1, limit=50)] == list(range(expected + 1))
    again.close()
    shutil.rmtree(base)


def _change(line: bytes, **fields: Any) -> bytes:
    raw = orjson.loads(line)
    raw["entry"] |= fields
    return orjson.dumps(raw) + b"\n"


@pytest.mark.parametrize("which", ["first", "middle", "last"])
def test_a_changed_entry_is_found(tmp_path: Path, key: WorkerKey, which: str) -> None:
    folder = tmp_path / "tampered"
    filled(folder, key, 9)
    paths = segments(folder)
    path = {"first": paths[0], "middle": paths[1], "last": paths[-1]}[which]
    lines = path.read_bytes().splitlines(keepends=True)
    place = 0 if which == "first" else -1
    lines[place] = _change(lines[place], completion_tokens=1)
    path.write_bytes(b"".join(lines))
    with pytest.raises(JournalCorruptError):
        Journal(folder, key)


def test_a_removed_entry_and_a_removed_segment_are_found(tmp_path: Path, key: WorkerKey) -> None:
    for name, damage in (("line", _drop_line), ("segment", _drop_segment), ("swap", _swap_lines)):
        folder = tmp_path / name
        filled(folder, key, 9)
        damage(folder)
        with pytest.raises(JournalCorruptError):
            Journal(folder, key)


def _drop_line(folder: Path) -> None:
    path = segments(folder)[0]
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))


def _drop_segment(folder: Path) -> None:
    segments(folder)[1].unlink()


def _swap_lines(folder: Path) -> None:
    path = segments(folder)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[1], lines[0], *lines[2:]]))


def test_a_chain_rewritten_with_another_key_is_found(tmp_path: Path, key: WorkerKey) -> None:
    filled(tmp_path / "forged", key_load(tmp_path / "other.pem"), 3)
    with pytest.raises(JournalCorruptError, match="not signed"):
        Journal(tmp_path / "forged", key)


def test_one_writer_at_a_time(journal: Journal, tmp_path: Path, key: WorkerKey) -> None:
    assert journal.next_seq == 0
    with pytest.raises(JournalLockedError):
        Journal(tmp_path / "journal", key)


def test_a_failed_write_is_undone_and_stops_the_journal(
    tmp_path: Path, key: WorkerKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "full", key)
    entry_append(journal, 0)

    def disk_full(descriptor: int, data: bytes) -> None:
        os.write(descriptor, data[:40])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(journal_module, "_write_whole", disk_full)
        with pytest.raises(JournalError, match="No space left"):
            entry_append(journal, 1)
    assert journal.broken is not None
    with pytest.raises(JournalError):
        entry_append(journal, 2)
    assert [signed.entry.seq for signed in journal.page(after_seq=-1, limit=9)] == [0]
    journal.close()
    reopened = Journal(tmp_path / "full", key)
    assert entry_append(reopened, 1).entry.seq == 1
    reopened.close()


def test_entries_reach_the_disk_soon_after_they_are_written(
    tmp_path: Path, key: WorkerKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    real = os.fsync

    def counting(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", counting)
    journal = Journal(tmp_path / "synced", key)
    for number in range(50):
        entry_append(journal, number)
    journal.close()
    size = segments(tmp_path / "synced")[0].stat().st_size
    assert synced[-1] == size
    assert len(synced) < 25


def test_a_failed_sync_stops_the_journal(
    tmp_path: Path, key: WorkerKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / "sync", key)

    def fails(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fails)
        entry_append(journal, 0)
        journal.close()
    assert journal.broken is not None
    assert "Input/output" in journal.broken
