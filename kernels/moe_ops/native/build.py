"""Compile `csrc/` to one shared library: `python -m moe_ops.native.build`.

Needs a C++20 compiler (`$CXX`, else g++ or clang++) and nothing else. A source whose name ends in `_avx2`,
`_avx512`, `_vnni` or `_bf16` is compiled for that instruction set and must be called only after the run-time
check of `cpu.h`; all others run anywhere. `torch.utils.cpp_extension` says where torch's headers and
libraries are; its `CppExtension` and `load` do not compile them, as they give all sources the same flags, the
first links a library to one version of Python, and the second needs ninja.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from torch.utils.cpp_extension import include_paths, library_paths

from moe_ops.native.library import (
    COMMON_FLAGS,
    ISA_FLAGS,
    SOURCES,
    built_library,
    folders,
    library_name,
    sanitizer_flags,
)


class BuildError(RuntimeError):
    """The library could not be compiled; the message holds the compiler's own."""


def build() -> Path:
    """Compile unless done already, one process at a time, and return the library's path.

    Raises `BuildError` without a compiler, without a writable place, or when compilation fails.
    """
    if found := built_library():
        return found
    folder = _writable_folder()
    with _lock(folder / "lock"):
        return built_library() or _compile_all(folder)


def compiler() -> tuple[str, ...]:
    """How the C++ compiler is called, its path first: `$CXX` where set, which may have several words (`ccache
    g++`). Raises `BuildError` when it is not there.
    """
    named = shlex.split(os.environ.get("CXX", ""))
    for name, *more in [named] if named else [["g++"], ["clang++"]]:
        if path := shutil.which(name):
            return (path, *more)
    if named:
        raise BuildError(f"CXX names {named[0]!r}, and there is no such program")
    raise BuildError("no C++ compiler found (g++ or clang++; on Debian or Ubuntu: apt install g++)")


def _compile_all(folder: Path) -> Path:
    began = time.monotonic()
    command, sources = compiler(), _sources()
    _say(began, f"compiling {len(sources)} files of CPU kernels with {' '.join(command)}")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        objects = {source: Path(scratch) / f"{source.stem}.o" for source in sources}
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            work = [pool.submit(_compile, command, source, out) for source, out in objects.items()]
            for done in work:
                done.result()
        library = Path(scratch) / library_name()
        _execute([*command, "-shared", *map(str, objects.values()), "-o", str(library), *_link_flags()])
        for stale in folder.glob("tokenworks-*.so"):
            stale.unlink(missing_ok=True)
        target = library.replace(folder / library.name)
    _say(began, "CPU kernels ready")
    return target


def _compile(command: tuple[str, ...], source: Path, out: Path) -> None:
    headers = [word for folder in include_paths() for word in ("-isystem", folder)]
    flags = [*COMMON_FLAGS, *_isa_flags(source), *sanitizer_flags()]
    _execute([*command, *flags, *headers, "-c", str(source), "-o", str(out)])


def _isa_flags(source: Path) -> tuple[str, ...]:
    return next((flags for suffix, flags in ISA_FLAGS.items() if source.stem.endswith(suffix)), ())


def _link_flags() -> list[str]:
    # torch brings its own libgomp: linking the same soname keeps one pool of threads in the process
    where = [f"-L{folder}" for folder in library_paths()]
    return [*sanitizer_flags(), *where, "-ltorch_cpu", "-lc10", "-l:libgomp.so.1"]


def _sources() -> list[Path]:
    """Those for the processor at hand, long ones first so that all compilers end together."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    every = (path for path in SOURCES.glob("*.cpp") if x86 or not _isa_flags(path))
    return sorted(every, key=lambda path: ("registration" not in path.name, path.name))


def _execute(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise BuildError(f"{' '.join(command)}\n{result.stdout}{result.stderr}".rstrip())


def _writable_folder() -> Path:
    for folder in folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise BuildError(f"none of {', '.join(map(str, folders()))} is writable")


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _say(began: float, text: str) -> None:
    print(f"[native {time.monotonic() - began:5.1f} s] {text}", flush=True)


def main() -> int:
    """Exit status 0 when the library is there, 1 with the reason when it cannot be."""
    try:
        build()
    except BuildError as error:
        print(f"native: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
