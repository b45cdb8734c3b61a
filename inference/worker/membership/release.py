"""The release in the model folder: its manifest, and proofs that its bytes are here."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from inference.messages import ByteRange, challenge_proof, manifest_digest, release_manifest

MAX_PROOF_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LocalRelease:
    """The files of a release on this machine, with their SHA-256 and the digest over all."""

    folder: Path
    manifest: dict[str, str]
    digest: str

    def prove(self, nonce: str, ranges: Sequence[ByteRange]) -> str:
        """Answer an enrolment challenge. Raises ValueError for a range outside the release's files."""
        if sum(span.length for span in ranges) > MAX_PROOF_BYTES:
            raise ValueError("the challenge asks for too many bytes")
        return challenge_proof(nonce, [self._read(span) for span in ranges])

    def _read(self, span: ByteRange) -> bytes:
        if span.path not in self.manifest or span.offset < 0 or span.length < 0:
            raise ValueError(f"the challenge asks for {span.path!r}, which is no part of this release")
        with (self.folder / span.path).open("rb") as file:
            file.seek(span.offset)
            chunk = file.read(span.length)
        if len(chunk) != span.length:
            raise ValueError(f"the challenge asks for bytes beyond the end of {span.path}")
        return chunk


def release_read(folder: Path) -> LocalRelease:
    """Hash the release in ``folder``. Raises ValueError or OSError when there is none."""
    manifest = release_manifest(folder)
    return LocalRelease(folder=folder, manifest=manifest, digest=manifest_digest(manifest))


def release_begin(folder: Path) -> Future[LocalRelease]:
    """As `release_read`, in a thread for which nobody waits who ends before it."""
    found: Future[LocalRelease] = Future()
    found.set_running_or_notify_cancel()  # whoever stops waiting does not stop it

    def read() -> None:
        try:
            found.set_result(release_read(folder))
        except Exception as error:
            found.set_exception(error)

    Thread(target=read, name="release", daemon=True).start()
    return found
