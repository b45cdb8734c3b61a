"""Entry point of `python -m inference.routing_profile`."""

import sys

from inference.routing_profile.cli import main

sys.exit(main())
