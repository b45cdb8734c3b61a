"""``make sanitize``: the tests of the CPU kernels with AddressSanitizer and UBSan watching the kernels.

Needs gcc with its sanitizers' libraries. They must be in a process before anything else, so the tests run in
one that begins with them; the first finding ends it, with where it is. Leaks are not looked for: Python and
torch leave much behind when they end.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from moe_ops.native.build import BuildError, compiler
from moe_ops.native.library import SANITIZE
from stack.layout import ROOT

# all that call the kernels: what is Triton's, an NPU's or a wheel's does not
TESTS = ("tests/moe_ops", *(f"--ignore-glob=*/test_{name}*" for name in ("triton", "npu", "wheel", "graphs")))
# libstdc++ comes third, so that AddressSanitizer finds what throws in it
_LIBRARIES = ("libasan.so", "libubsan.so", "libstdc++.so")
_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests named, or all of the kernels; exit status 1 when one fails or there is no gcc."""
    wanted = sys.argv[1:] if arguments is None else list(arguments)
    try:
        watched = {**os.environ, **environment(compiler())}
    except BuildError as error:
        print(f"sanitize: {error}", file=sys.stderr)
        return 1
    # nothing is captured: what a sanitizer says before it ends the process would be lost
    tests = [sys.executable, "-m", "pytest", "-s", "-q", *(wanted or TESTS)]
    for command, variables in (
        ([sys.executable, "-m", "moe_ops.native.build"], {**os.environ, SANITIZE: "1"}),
        (tests, watched),
    ):
        if subprocess.run(command, cwd=ROOT, env=variables, check=False).returncode:
            return 1
    return 0


def environment(command: Sequence[str]) -> dict[str, str]:
    """What a process needs to load a library that the compiler `command` made with sanitizers. Raises
    `BuildError` where it has none.
    """
    found = []
    for name in _LIBRARIES:
        asked = [*command, f"-print-file-name={name}"]
        path = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
        if not path.is_absolute():  # gcc gives back a name that it does not know
            raise BuildError(f"{command[-1]} has no {name}: gcc and its sanitizers are needed")
        found.append(str(path.resolve()))
    return {SANITIZE: "1", "LD_PRELOAD": " ".join(found), **_OPTIONS}


if __name__ == "__main__":
    sys.exit(main())
