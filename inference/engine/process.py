"""The engine in a process of its own: ``python -m inference.engine.process FD``, FD a socket's descriptor."""

from __future__ import annotations

import gc
import sys


def main() -> int:
    """Serve the front at the other end of the inherited socket until it is gone."""
    # A tenth of the time of importing torch would go to looking for garbage; `serve` turns this on again.
    gc.disable()
    from inference.engine.serving import front_serve  # noqa: PLC0415

    # What is imported stays: the collector need not look at it once more when the model is loaded.
    gc.freeze()
    return front_serve(int(sys.argv[1]))


if __name__ == "__main__":
    sys.exit(main())
