"""Entry point of `python -m inference.train`."""

import sys

from inference.train.cli import main

sys.exit(main())
