"""``make check``: every static check, each under a heading with its time. All run, even after a failure."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from stack.layout import ROOT
from stack.source import PACKAGES

_BIN = Path(sys.executable).parent
# settings are imported by the type checker and by Django; nothing is connected to
_ENVIRONMENT = {
    "TOKENWORKS_SECRET_KEY": "unused-by-checks",
    "TOKENWORKS_DISPATCH_SECRET": "unused-by-checks",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "DATABASE_URL": "postgresql://check:check@127.0.0.1:1/check",
    "DATABASE_APP_URL": "postgresql://check:check@127.0.0.1:1/check",
    "DATABASE_SYSTEM_URL": "postgresql://check:check@127.0.0.1:1/check",
    "DJANGO_SETTINGS_MODULE": "config.settings",
}


def checks() -> list[tuple[str, list[str]]]:
    """Heading and command of each check."""
    packages = [part for name in PACKAGES for part in ("--package", name)]
    return [
        ("lint", [str(_BIN / "ruff"), "check", "."]),
        ("format", [str(_BIN / "ruff"), "format", "--check", "."]),
        ("types", [str(_BIN / "mypy"), *packages]),
        ("import layers", [str(_BIN / "lint-imports")]),
        ("migrations", [sys.executable, "-m", "stack.migrations"]),
        ("settings", [sys.executable, "-m", "stack.duplicates"]),
    ]


def run_all(commands: Sequence[tuple[str, list[str]]]) -> list[str]:
    """Run each and return the headings of those that failed."""
    failed = []
    for heading, command in commands:
        print(f"── {heading}", flush=True)
        began = time.monotonic()
        status = subprocess.run(command, cwd=ROOT, env={**os.environ, **_ENVIRONMENT}, check=False).returncode
        verdict = "ok" if status == 0 else f"FAILED (status {status})"
        print(f"   {heading}: {verdict} in {time.monotonic() - began:.1f} s\n", flush=True)
        if status != 0:
            failed.append(heading)
    return failed


def main() -> int:
    """Exit status 1 when any check failed."""
    failed = run_all(checks())
    print(f"check: {', '.join(failed)} failed" if failed else "check: everything holds")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
