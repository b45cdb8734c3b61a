"""Triton's kernels against their references, in Triton's interpreter.

The interpreter is chosen when triton is first imported, and other tests import it for other reasons: so these
run in a process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = sorted((Path(__file__).parent / "interpreted").glob("*_cases.py"))


@pytest.mark.timeout(280)
def test_kernels_match_their_references_in_the_interpreter() -> None:
    assert len(CASES) >= 4
    plugins = ("no:randomly", "no:django", "no:cacheprovider")
    options = ["-q", "--noconftest", *(part for plugin in plugins for part in ("-p", plugin))]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *map(str, CASES)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=270,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
