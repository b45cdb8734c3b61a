"""The local journal: what was appended is read back, whatever crashed in between."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.journal import Journal, JournalInUseError, Mark, Position


def read_all(journal: Journal, position: Position, limit: int = 64) -> tuple[list[bytes], Position]:
    found: list[bytes] = []
    while True:
        lines, after = journal.read(position, limit)
        found += lines
        if after == position:
            return found, position
        position = after


@settings(max_examples=40, deadline=None, derandomize=True)
@given(lines=st.lists(st.binary(min_size=1, max_size=90).map(lambda raw: raw.hex().encode()), max_size=30))
def test_everything_is_read_in_order_over_segments(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]
) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal"), segment_bytes=200)
    for line in lines:
        journal.append(line)
    found, end = read_all(journal, Position(1, 0))
    assert found == lines
    assert end == journal.end
    journal.close()


def test_next_life_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=1000)
    journal.append(b"one")
    journal.mark_save(Mark(journal.end, "run", "epoch"))
    journal.append(b"two")
    journal.close()
    journal = Journal(tmp_path, segment_bytes=1000)
    mark = journal.mark_load()
    assert (mark.server_run, mark.epoch) == ("run", "epoch")
    journal.append(b"three")
    assert read_all(journal, mark.position)[0] == [b"two", b"three"]
    journal.close()


def test_torn_record_is_closed_and_harmless(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=1000)
    journal.append(b"one")
    journal.close()
    with (tmp_path / "0000000001.jsonl").open("ab") as file:
        file.write(b'{"half')
    journal = Journal(tmp_path, segment_bytes=1000)
    journal.append(b"two")
    assert read_all(journal, Position(1, 0))[0] == [b"one", b'{"half', b"two"]
    journal.close()


def test_damaged_mark_means_from_the_beginning(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=1000)
    journal.append(b"one")
    (tmp_path / "cursor.json").write_text("{")
    assert journal.mark_load() == Mark(Position(1, 0), "", "")
    journal.mark_save(Mark(Position(9, 9), "run", "epoch"))
    assert journal.mark_load().position == Position(1, 0)
    journal.close()


def test_only_settled_and_old_segments_are_removed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=10)
    for index in range(5):
        journal.append(b"%d" % index * 20)
    now = time.time()
    for segment in (1, 2, 3):
        os.utime(tmp_path / f"{segment:010d}.jsonl", (now - 100, now - 100))
    assert journal.trim(Position(3, 0), older_than_unix_s=now - 50, bytes_max=10**9) == 2
    assert journal.segments() == [3, 4, 5]
    assert journal.read(Position(1, 0), 100) == ([], Position(3, 0))
    assert journal.start_since(now - 50) == Position(4, 0)
    assert journal.trim(Position(5, 0), older_than_unix_s=0, bytes_max=30) == 2
    assert journal.segments() == [5]
    assert journal.backlog_bytes(Position(5, 1)) == 20
    journal.close()


def test_one_writer(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=10)
    with pytest.raises(JournalInUseError):
        Journal(tmp_path, segment_bytes=10)
    journal.close()
    Journal(tmp_path, segment_bytes=10).close()


def test_a_full_disk_at_a_new_segment_closes_nobody_elses_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path, segment_bytes=4)
    journal.append(b"first")

    def full(*_arguments: object) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        with pytest.raises(OSError, match="no space"):
            journal.append(b"lost")
    other = os.dup(0)  # takes the lowest free number: one that was given back too early
    journal.append(b"second")
    os.close(other)  # raises when the journal had closed it
    assert journal.read(Position(1, 0), 100) == ([b"first"], Position(1, 6))
    assert journal.read(Position(2, 0), 100) == ([b"second"], Position(2, 7))
    journal.close()
