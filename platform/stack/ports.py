"""Loopback TCP ports: free ones, and whether one is taken."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_listening(port: int, *, timeout_s: float = 0.2) -> bool:
    """Whether something accepts connections on ``port``."""
    with socket.socket() as probe:
        probe.settimeout(timeout_s)
        return probe.connect_ex((LOOPBACK, port)) == 0


def is_free(port: int) -> bool:
    """Whether a server could bind ``port`` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def port_from_env(name: str, env: Mapping[str, str] | None = None) -> int:
    """The port that variable ``name`` asks for, else a free one. Raises ValueError when it is no port."""
    text = (os.environ if env is None else env).get(name, "")
    if not text:
        return free_port()
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ValueError(f"{name} must be a port number between 1 and 65535, not {text!r}")
    return int(text)
