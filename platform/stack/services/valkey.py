"""Valkey 9 on loopback TCP with a password; every write in the append-only file, synced each second."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import redis

from stack.files import write_private
from stack.services.binaries import valkey_server
from stack.services.service import Service


class EmbeddedValkey(Service):
    """A Valkey server. Its configuration file, not its command line, carries the password."""

    name = "valkey"
    stop_signal = signal.SIGTERM
    death_signal = signal.SIGTERM

    @property
    def url(self) -> str:
        """``redis://`` URL of database 0, password included."""
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        """Write the configuration the server starts from."""
        super().prepare()
        settings = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"requirepass {self.password}",
            f'dir "{self.home}"',
            "daemonize no",
            'save ""',
            "appendonly yes",
            "appendfsync everysec",
            "maxmemory-policy noeviction",
        ]
        write_private(self._config, "\n".join(settings) + "\n")
        if self.account is not None:
            os.chown(self._config, self.account.uid, self.account.gid)

    def command(self) -> list[str]:
        """``valkey-server`` with its configuration file."""
        return [str(valkey_server(self.account)), str(self._config)]

    def answers(self) -> bool:
        """Whether PING is answered (not while the append-only file is being loaded)."""
        with contextlib.suppress(redis.exceptions.RedisError, OSError):
            client = redis.Redis.from_url(self.url, socket_timeout=2)
            try:
                return bool(client.ping())
            finally:
                client.close()
        return False

    @property
    def _config(self) -> Path:
        return self.home / "valkey.conf"
