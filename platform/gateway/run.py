"""``python -m gateway.run --host H --port P``: one gateway process under uvicorn with the right settings."""

from __future__ import annotations

import argparse
import signal
import sys
from types import FrameType

import uvicorn

from core.process import die_with_parent


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; streams in flight may end first, within the drain time."""
    parser = argparse.ArgumentParser(prog="gateway.run", description="Run one gateway process.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--drain-seconds", type=int, default=30, help="how long streams may go on after SIGTERM"
    )
    options = parser.parse_args(arguments)
    die_with_parent()
    signal.signal(signal.SIGTERM, _leave)
    uvicorn.run(
        "gateway.app:app",
        host=options.host,
        port=options.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=4096,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=options.drain_seconds,
    )


def _leave(_signal: int, _frame: FrameType | None) -> None:
    """What uvicorn falls back to after its clean shutdown: a status of 0."""
    sys.exit(0)


if __name__ == "__main__":
    main()
