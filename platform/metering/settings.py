"""What the meter process is told by its environment."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class MeterSettings:
    """What the process needs from its environment."""

    database_url: str
    redis_url: str
    dispatch_secret: str
    slot: str
    host: str
    port: int


def settings_from_env() -> MeterSettings:
    """Read the environment. Raises SystemExit naming the variable that is missing."""
    return MeterSettings(
        database_url=_env("DATABASE_SYSTEM_URL"),
        redis_url=_env("REDIS_URL"),
        dispatch_secret=_env("TOKENWORKS_DISPATCH_SECRET"),
        slot=os.environ.get("TOKENWORKS_METER_SLOT", "meter-0"),
        host=os.environ.get("TOKENWORKS_METRICS_HOST", "127.0.0.1"),
        port=int(_env("TOKENWORKS_METRICS_PORT")),
    )


def _env(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        raise SystemExit(f"environment variable {name} is not set; `make up` sets it for its processes")
    return value
