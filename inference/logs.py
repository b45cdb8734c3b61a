"""Structured logs: one JSON object a line on stderr. Prompts, outputs and secrets are never logged."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

_SECRET = re.compile(r"tw-[a-z]{2,8}-[0-9a-f]{8,}")


class _JsonLines(logging.Formatter):
    def __init__(self, bound: Mapping[str, str]) -> None:
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


def json_logs(bound: Mapping[str, str], *, level: int = logging.INFO) -> None:
    """Send every logger of this process to stderr as JSON lines, each with the fields of ``bound``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(bound))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
