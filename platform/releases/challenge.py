"""Does a worker hold the release it names? It must hash bytes from places it could not foresee.

The places follow from the challenge's nonce alone, so nothing but the nonce is remembered: one range in
each file, and more drawn over all bytes, so most fall into the weights.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from core.errors import overloaded
from inference.messages import ByteRange, challenge_proof
from releases.models import Release

RANGE_BYTES = 4096
DRAWN_RANGES = 16
FILES_MAX = 256


def challenge_ranges(release: Release, nonce: str) -> Sequence[ByteRange]:
    """The byte ranges that ``nonce`` asks for. Raises ApiError 503 when the release's files are away."""
    sizes = _sizes(release)
    ranges = [_range_in(path, sizes[path], nonce, f"file:{path}") for path in sorted(sizes)]
    return ranges + [_range_over_all(sizes, nonce, number) for number in range(DRAWN_RANGES)]


def proof_is_valid(release: Release, nonce: str, proof: str) -> bool:
    """Whether ``proof`` answers the challenge of ``nonce``. Raises ApiError 503 as above."""
    root = Path(release.artifact_dir)
    chunks = [_read(root, part) for part in challenge_ranges(release, nonce)]
    return hmac.compare_digest(challenge_proof(nonce, chunks).encode(), proof.encode())


def _range_in(path: str, size: int, nonce: str, label: str) -> ByteRange:
    length = min(RANGE_BYTES, size)
    return ByteRange(path=path, offset=_draw(nonce, label, size - length + 1), length=length)


def _range_over_all(sizes: dict[str, int], nonce: str, number: int) -> ByteRange:
    point = _draw(nonce, f"drawn:{number}", sum(sizes.values()))
    for path in sorted(sizes):
        if point < sizes[path]:
            length = min(RANGE_BYTES, sizes[path])
            return ByteRange(path=path, offset=min(point, sizes[path] - length), length=length)
        point -= sizes[path]
    raise AssertionError("unreachable: the point lies below the sum of all sizes")


def _draw(nonce: str, label: str, below: int) -> int:
    digest = hmac.new(nonce.encode(), label.encode(), hashlib.sha256).digest()
    return int.from_bytes(digest[:16], "big") % max(1, below)


def _sizes(release: Release) -> dict[str, int]:
    root = Path(release.artifact_dir)
    names = sorted(release.manifest)[:FILES_MAX]
    try:
        return {name: _inside(root, name).stat().st_size for name in names}
    except OSError as error:
        raise overloaded("The release's files cannot be read here now. Try again later.") from error


def _read(root: Path, part: ByteRange) -> bytes:
    try:
        with _inside(root, part.path).open("rb") as file:
            file.seek(part.offset)
            return file.read(part.length)
    except OSError as error:
        raise overloaded("The release's files cannot be read here now. Try again later.") from error


def _inside(root: Path, name: str) -> Path:
    """The file ``name`` in ``root``. Raises ValueError when the name leads out of it."""
    path = root / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError("a release's file names are plain relative paths")
    return path
