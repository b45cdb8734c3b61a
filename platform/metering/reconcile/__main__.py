"""``python -m metering.reconcile``: print the comparison; exit 1 when anything differs."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict

import django

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    django.setup()

import redis
from django.conf import settings
from rich.console import Console

from metering.journals import JournalReader
from metering.reconcile.report import reconcile
from metering.reconcile.tables import report_tables


def main() -> int:
    """Compare, print, and say by the exit code whether all is well."""
    parser = argparse.ArgumentParser(prog="python -m metering.reconcile", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the report as JSON instead of tables")
    options = parser.parse_args()
    client = redis.Redis.from_url(settings.REDIS_URL)
    report = reconcile(client=client, journals=JournalReader(dispatch_secret=settings.DISPATCH_SECRET))
    if options.json:
        sys.stdout.write(json.dumps({"agrees": report.agrees, **asdict(report)}) + "\n")
    else:
        Console().print(*report_tables(report), sep="\n")
    return 0 if report.agrees else 1


if __name__ == "__main__":
    sys.exit(main())
