"""``python -m inference.worker``: see ``--help``."""

from __future__ import annotations

import sys

from inference.worker.ahead import Ahead
from inference.worker.options import options_parse


def main() -> int:
    """Run the worker; the exit status tells a supervisor whether to start it again."""
    options = options_parse()
    ahead = Ahead.start(options)
    try:
        # half a second of imports, while the engine's process imports torch and the release is hashed
        from inference.worker.main import worker_main  # noqa: PLC0415

        return worker_main(options, ahead)
    finally:
        ahead.child.end()


if __name__ == "__main__":
    sys.exit(main())
