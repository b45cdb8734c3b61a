"""Structured logs: one JSON object a line on stderr, with the request id bound by whoever handles one."""

from __future__ import annotations

import logging
import re
import sys

import structlog
from structlog.typing import EventDict, WrappedLogger

_SECRET = re.compile(r"tw-[a-z]{2,8}-[0-9a-f]{8,}")
_SECRET_FIELDS = frozenset({"authorization", "password", "token", "secret", "api_key", "cookie"})


def redact(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Drop the values of secret fields and anything that looks like one of our bearer secrets."""
    for field, value in event.items():
        if field.lower() in _SECRET_FIELDS:
            event[field] = "[redacted]"
        elif isinstance(value, str):
            event[field] = _SECRET.sub("[redacted]", value)
    return event


def configure_logs(*, process: str, level: int = logging.INFO) -> None:
    """Send structlog and the standard library's loggers to stderr as JSON lines marked with ``process``."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("uvicorn.access").disabled = True
    structlog.contextvars.bind_contextvars(process=process)
