"""Everything a gateway process is told from outside, read once, with a loud error for what is missing."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.ids import is_id, new_id


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Addresses, secrets, and limits. Times in seconds unless the name says otherwise."""

    redis_url: str
    dispatch_secret: str
    gateway_id: str
    state_dir: Path
    key_file: Path
    redis_timeout_s: float = 1.0
    refresh_interval_s: float = 0.5
    connect_timeout_s: float = 1.0
    whole_timeout_s: float = 600.0
    quiet_timeout_s: float = 120.0
    keep_alive_interval_s: float = 10.0
    attempts_max: int = 3
    unreachable_s: float = 2.0
    journal_retry_s: float = 10.0
    drain_s: float = 30.0
    body_bytes_max: int = 4 * 1024 * 1024
    segment_bytes: int = 64 * 1024 * 1024

    @property
    def journal_dir(self) -> Path:
        """Where this gateway's own journal lies."""
        return self.state_dir / "gateway" / self.gateway_id


def settings_from(environ: Mapping[str, str]) -> Settings:
    """Settings of the environment. Raises RuntimeError naming the variable that is missing or wrong."""
    state_dir = Path(environ.get("TOKENWORKS_STATE_DIR", "var"))
    gateway_id = environ.get("TOKENWORKS_GATEWAY_ID") or _stored_id(state_dir / "gateway" / "id")
    if not is_id(gateway_id, "gw"):
        raise RuntimeError("TOKENWORKS_GATEWAY_ID must be an id such as gw_ and 26 characters")
    key_file = environ.get("TOKENWORKS_GATEWAY_KEY_FILE")
    return Settings(
        redis_url=_required(environ, "REDIS_URL"),
        dispatch_secret=_required(environ, "TOKENWORKS_DISPATCH_SECRET"),
        gateway_id=gateway_id,
        state_dir=state_dir,
        key_file=Path(key_file) if key_file else state_dir / "gateway" / "signing.pem",
    )


def _required(environ: Mapping[str, str], name: str) -> str:
    value = environ.get(name, "")
    if not value:
        raise RuntimeError(f"{name} is not set: the gateway cannot run without it")
    return value


def _stored_id(path: Path) -> str:
    """The id kept at ``path``, made there on first use; two processes starting together agree."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        stored = file.read().strip()
        if not stored:
            stored = new_id("gw")
            file.write(stored + "\n")
            file.flush()
            os.fsync(file.fileno())
    return stored
