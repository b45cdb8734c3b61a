"""Where the compiled library lies, and the name that only a library of these very sources has."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from pathlib import Path

import torch

SOURCES = Path(__file__).parent / "csrc"
COMMON_FLAGS = (
    "-std=c++20",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-fopenmp",
    "-ffp-contract=off",  # results must not depend on how a compiler fuses
    "-fno-math-errno",
)
SANITIZE = "TOKENWORKS_SANITIZE"  # the environment's variable
# After the others: the last -O counts.
_SANITIZER_FLAGS = ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined")
_AVX512 = ("-mavx2", "-mfma", "-mf16c", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl")
ISA_FLAGS = {
    "_avx2": ("-mavx2", "-mfma", "-mf16c"),
    "_avx512": _AVX512,
    # at -O3 gcc 12 copies each accumulator of VPDPBUSD to another register and back
    "_vnni": (*_AVX512, "-mavx512vnni", "-O2"),
    "_bf16": (*_AVX512, "-mavx512bf16", "-O2"),
}


def sanitizer_flags() -> tuple[str, ...]:
    """What has a compiler check memory and undefined behaviour: nothing unless `TOKENWORKS_SANITIZE` is set.
    Such a library loads only into a process that began with the sanitizers, see `make sanitize`.
    """
    return _SANITIZER_FLAGS if os.environ.get(SANITIZE) else ()


def built_library() -> Path | None:
    """The library of exactly these sources, if it has been compiled."""
    return next((path for folder in folders() if (path := folder / library_name()).exists()), None)


@cache
def library_name() -> str:
    """Carries a digest of the sources, the flags, torch's version and the processor family."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    flags = (COMMON_FLAGS, sorted(ISA_FLAGS.items()), *sanitizer_flags())
    version = torch.__version__.split("+")[0]  # builds for a CPU or for CUDA take the same library
    digest.update(repr((flags, version, platform.machine())).encode())
    return f"tokenworks-{digest.hexdigest()[:20]}.so"


def folders() -> tuple[Path, Path]:
    """Where a library may lie: beside the sources, or in the user's cache where those are read-only."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    beside, cache_folder = Path(__file__).parent / "_build", Path(base) / "tokenworks" / "native"
    if sanitizer_flags():  # apart: a new library takes the place of those beside it
        return beside / "sanitized", cache_folder / "sanitized"
    return beside, cache_folder
