"""Structured logs: one JSON object a line on stderr, with the request id bound by whoever handles one."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any

import structlog
from structlog.typing import EventDict, WrappedLogger

_SECRET = re.compile(r"tw-[a-z]{2,8}-[0-9a-f]{8,}")
_SECRET_FIELDS = frozenset({"authorization", "password", "token", "secret", "api_key", "cookie"})
_HIDDEN = "[redacted]"


def redact(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Drop the values of secret fields and whatever looks like one of our bearer secrets, at any depth."""
    for field, value in event.items():
        event[field] = _redacted(field, value)
    return event


def _redacted(field: object, value: Any) -> Any:
    if isinstance(field, str) and field.lower() in _SECRET_FIELDS:
        return _HIDDEN
    if isinstance(value, str):
        return _SECRET.sub(_HIDDEN, value)
    if isinstance(value, Mapping):
        return {name: _redacted(name, item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_redacted(None, item) for item in value]
    return value


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
