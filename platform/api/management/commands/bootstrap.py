"""``manage.py bootstrap``: a consortium, its release and a demo tenant."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

from api.bootstrap import Bootstrap, bootstrap
from core.logs import configure_logs
from tenants.scope import OWNER


class Command(BaseCommand):
    """Prepare a consortium from a charter and a model folder; safe to repeat."""

    help = "Adopt a charter, register the release it offers, and prepare a demo tenant. Safe to repeat."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Options of the command line."""
        parser.add_argument("--charter", type=Path, default=settings.BASE_DIR / "charters/deepseek.yaml")
        parser.add_argument("--model-dir", type=Path, default=settings.BASE_DIR / "inference/models/nano")
        parser.add_argument("--json", action="store_true", help="Print all of it, secrets included, as JSON.")
        parser.add_argument("--migrate", action="store_true", help="Bring the schema up to date first.")
        parser.add_argument(
            "--fresh-tokens", action="store_true", help="Enrolment tokens for pools with a worker too."
        )

    def handle(self, **options: Any) -> None:
        """Run it. Raises CommandError when charter or release cannot be used."""
        configure_logs(process="bootstrap")
        if options["migrate"]:
            call_command("migrate", database=OWNER, interactive=False, verbosity=0, skip_checks=True)
        try:
            done = bootstrap(
                charter_path=options["charter"],
                model_dir=options["model_dir"],
                fresh_tokens=options["fresh_tokens"],
            )
        except (ValueError, OSError) as error:
            raise CommandError(str(error)) from error
        self.stdout.write(json.dumps(asdict(done), indent=2) if options["json"] else _in_words(done))


def _in_words(done: Bootstrap) -> str:
    lines = [f"{account.role}: {account.email} {account.password}" for account in done.accounts]
    lines.append(f"API key of the demo tenant: {done.api_key}")
    lines += [
        f"pool {pool.slug} of {pool.partner}: {pool.enrolment_token or 'has a worker'}" for pool in done.pools
    ]
    return "\n".join(lines)
