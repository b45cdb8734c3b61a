"""The worker's log: events with plain fields."""

from __future__ import annotations

import logging

from inference.logs import json_logs

_LOGGER = logging.getLogger("tokenworks.worker")


def configure_logs(*, worker: str, level: int = logging.INFO) -> None:
    """Send every logger of the process to stderr as JSON lines marked with the worker's name."""
    json_logs({"process": "worker", "worker": worker}, level=level)
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def log_event(
    event: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: object
) -> None:
    """Log ``event`` with plain fields, and the traceback of ``error`` if one is given."""
    _LOGGER.log(level, event, exc_info=error, extra={"fields": fields})
