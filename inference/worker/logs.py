"""Structured logs: one JSON object a line on stderr. Prompts, outputs and secrets are never logged."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime

_SECRET = re.compile(r"tw-[a-z]{2,8}-[0-9a-f]{8,}")
_LOGGER = logging.getLogger("tokenworks.worker")


class _JsonLines(logging.Formatter):
    def __init__(self, bound: dict[str, str]) -> None:
        super().__init__()
        self._bound = bound

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **self._bound,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _SECRET.sub("[redacted]", json.dumps(line, ensure_ascii=False, default=str))


def configure_logs(*, worker: str, level: int = logging.INFO) -> None:
    """Send every logger of the process to stderr as JSON lines marked with the worker's name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines({"process": "worker", "worker": worker}))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("httpx", "httpcore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def log_event(
    event: str, *, level: int = logging.INFO, error: BaseException | None = None, **fields: object
) -> None:
    """Log ``event`` with plain fields, and the traceback of ``error`` if one is given."""
    _LOGGER.log(level, event, exc_info=error, extra={"fields": fields})
