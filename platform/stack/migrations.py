"""Whether models and migrations agree: ``makemigrations --check`` without a database."""

from __future__ import annotations

import sys
import warnings

import django
from django.core.management import call_command


def main() -> int:
    """Exit status 1, with the missing migration printed, when a model has changed without one."""
    django.setup()
    # no database answers during checks, and only the consistency of its history would need one
    warnings.filterwarnings("ignore", message="Got an error checking a consistent migration history")
    try:
        call_command("makemigrations", check=True, dry_run=True, interactive=False)
    except SystemExit as error:
        return int(error.code or 0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
