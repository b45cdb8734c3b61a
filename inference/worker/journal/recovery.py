"""Reading a journal back at the start: every link of the chain is checked.

Each signature covers the hash of the entry before it, so checking the newest signature of every segment
proves all entries before it: nobody without the key can change one and repair the chain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from inference.messages import GENESIS_HASH, SignedEntry
from inference.worker.journal.errors import JournalCorruptError
from inference.worker.journal.lines import line_decode
from inference.worker.journal.segments import Segment, lines_read, segment_paths
from inference.worker.signing import signature_is_valid


@dataclass(slots=True)
class Recovered:
    """What a journal folder holds: its segments, the sequence number of each request, the chain's end."""

    segments: list[Segment] = field(default_factory=list)
    seq_by_request: dict[str, int] = field(default_factory=dict)
    next_seq: int = 0
    last_hash: str = GENESIS_HASH


def journal_recover(folder: Path, public_text: str) -> Recovered:
    """Read and verify the journal in ``folder``. Raises JournalCorruptError."""
    found = Recovered()
    paths = segment_paths(folder)
    for path in paths:
        if int(path.stem) != found.next_seq:
            raise JournalCorruptError(f"{path.name} found where entry {found.next_seq} should follow")
        segment = Segment(path=path, first_seq=found.next_seq)
        newest: SignedEntry | None = None
        for line in lines_read(path, last=path is paths[-1]):
            newest = _link(found, line)
            segment.add(len(line))
        if newest is not None and not _is_authentic(newest, public_text):
            raise JournalCorruptError(f"entry {newest.entry.seq} is not signed by this worker's key")
        found.segments.append(segment)
    return found


def _link(found: Recovered, line: bytes) -> SignedEntry:
    try:
        signed = line_decode(line)
    except ValueError:
        raise JournalCorruptError(f"entry {found.next_seq} cannot be read") from None
    entry = signed.entry
    if entry.seq != found.next_seq or entry.prev_hash != found.last_hash:
        raise JournalCorruptError(f"entry {found.next_seq} does not follow the one before it")
    if entry.request_id in found.seq_by_request:
        raise JournalCorruptError(f"entry {entry.seq} repeats request {entry.request_id}")
    found.seq_by_request[entry.request_id] = entry.seq
    found.next_seq += 1
    found.last_hash = entry.hash()
    return signed


def _is_authentic(signed: SignedEntry, public_text: str) -> bool:
    return signature_is_valid(
        public_text=public_text, message=signed.entry.signing_bytes(), signature=signed.signature
    )
