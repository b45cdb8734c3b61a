"""Who this worker is, as the control plane answered at enrolment; kept across restarts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from inference.messages import Enrolment
from inference.worker.membership.errors import ConfigurationError
from inference.worker.signing import file_write_private

# The facts an enrolment is made for, and their names in messages.
_MADE_FOR = {
    "public_key": "its key",
    "release": "its release",
    "release_digest": "its release's files",
    "endpoint": "its address",
    "control_url": "the control plane",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """An enrolment with what it was made for; a worker for which that changed must enrol anew."""

    enrolment: Enrolment
    public_key: str
    endpoint: str
    release: str
    release_digest: str
    control_url: str
    token_digest: str

    def mismatch(self, now: Mapping[str, str]) -> str | None:
        """What no longer fits the facts of ``now``, in words, or None."""
        for name, words in _MADE_FOR.items():
            if getattr(self, name) != now[name]:
                return f"{words} changed since it enrolled"
        return None


def token_digest(token: str) -> str:
    """SHA-256 of an enrolment token: tells a fresh token from the one already used."""
    return hashlib.sha256(token.encode()).hexdigest()


def identity_load(path: Path) -> Identity | None:
    """The stored identity, or None before the first enrolment. Raises ConfigurationError if unreadable."""
    if not path.exists():
        return None
    try:
        raw = orjson.loads(path.read_bytes())
        return Identity(enrolment=Enrolment.from_dict(raw.pop("enrolment")), **raw)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(f"{path.name} cannot be read ({error}); remove it and enrol anew") from None


def identity_store(path: Path, identity: Identity) -> None:
    """Write the identity with mode 0600, whole or not at all."""
    file_write_private(path, orjson.dumps(identity, option=orjson.OPT_INDENT_2))
