"""``python -m stack.up``: start the whole utility, serve a first request, stay up until Ctrl-C."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from stack.layout import ROOT, layout_make
from stack.run import EXIT_FAILED, Run, Wishes
from stack.screen import screen_for
from stack.upfile import AlreadyRunningError, state_lock


def options_parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m stack.up", description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop after the first request was billed")
    parser.add_argument("--no-demo", action="store_true", help="make no first request")
    parser.add_argument(
        "--state-dir", type=Path, default=ROOT / "var", metavar="DIR", help="data and logs (default: var)"
    )
    parser.add_argument(
        "--model-dir",
        type=Path,
        default=ROOT / "inference" / "models" / "nano",
        metavar="DIR",
        help="checkpoint folder the workers serve",
    )
    parser.add_argument(
        "--charter",
        type=Path,
        default=ROOT / "charters" / "deepseek.yaml",
        metavar="FILE",
        help="the consortium's charter",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 when all went well, 1 with the reason, 130 when interrupted while starting."""
    options = options_parse(arguments)
    try:
        with state_lock(options.state_dir):
            layout = layout_make(
                state_dir=options.state_dir,
                model_dir=options.model_dir,
                charter=options.charter,
                env=os.environ,
            )
            with screen_for(Console()) as screen:
                wishes = Wishes(once=options.once, demo=not options.no_demo)
                return Run(layout, screen, wishes).execute()
    except (AlreadyRunningError, ValueError, OSError, RuntimeError) as error:
        print(f"up: {error}\n('make doctor' looks for what is wrong with this machine)", file=sys.stderr)
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main())
