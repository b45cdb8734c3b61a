"""Whether each worker can go on as the one that enrolled, or must enrol anew with a fresh token."""

from __future__ import annotations

import json
from pathlib import Path

from inference.messages import manifest_digest, release_manifest
from stack.files import write_private
from stack.layout import Layout


def identities_check(layout: Layout) -> set[str]:
    """Names of workers that need a token. Those whose address or release changed start with a new identity.

    A key that enrolled once cannot enrol again, so key, identity and journal are put aside together.
    Raises ValueError or OSError when the model folder is no release.
    """
    digest = manifest_digest(release_manifest(layout.model_dir))
    need_tokens = set()
    for worker in layout.workers:
        folder = layout.worker_dir(worker.name)
        facts = _identity(folder)
        expected = {
            "endpoint": layout.url(worker.name),
            "control_url": layout.url("control"),
            "release_digest": digest,
        }
        if facts is None:
            need_tokens.add(worker.name)
        elif any(facts.get(name) != value for name, value in expected.items()):
            identity_put_aside(folder)
            need_tokens.add(worker.name)
        if worker.name in need_tokens:
            layout.token_file(worker.name).unlink(missing_ok=True)
    return need_tokens


def identity_put_aside(folder: Path) -> None:
    """Keep what the worker was under ``<name>.retired-N``: its journal may still be asked for."""
    number = 1
    while (retired := folder.with_name(f"{folder.name}.retired-{number}")).exists():
        number += 1
    folder.rename(retired)


def token_write(layout: Layout, worker: str, token: str) -> None:
    """Hand a worker its one-time enrolment token (mode 0600)."""
    write_private(layout.token_file(worker), token)


def _identity(folder: Path) -> dict[str, object] | None:
    path = folder / "identity.json"
    try:
        facts: dict[str, object] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return facts
