"""``python -m inference.worker``: see ``--help``."""

from __future__ import annotations

import sys

from inference.engine.child import EngineChild
from inference.worker.options import options_parse


def main() -> int:
    """Run the worker; the exit status tells a supervisor whether to start it again."""
    options = options_parse()
    child = EngineChild.start(options.engine.threads)
    try:
        # half a second of imports, while the engine's process imports torch
        from inference.worker.main import worker_main  # noqa: PLC0415

        return worker_main(options, child)
    finally:
        child.end()


if __name__ == "__main__":
    sys.exit(main())
