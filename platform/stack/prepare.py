"""Migrate and bootstrap in one Django process: ``python -m stack.prepare … `` prints bootstrap's JSON.

It alone gets the owner's database URL, and ends before anything is served.
"""

from __future__ import annotations

import io
import os
import sys


def main(arguments: list[str]) -> int:
    """Pass ``arguments`` to the bootstrap command after migrating as the owner."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    import django  # noqa: PLC0415  (settings must be named first)
    from django.core.management import call_command  # noqa: PLC0415

    django.setup()
    call_command("migrate", database="owner", verbosity=0, interactive=False)
    answer = io.StringIO()
    call_command("bootstrap", *arguments, "--json", stdout=answer)
    sys.stdout.write(answer.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
