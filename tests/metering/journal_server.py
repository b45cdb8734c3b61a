"""A worker's journal over real HTTP: what the sweeper and the reconciliation ask."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from core.clock import clock
from core.ids import new_id
from core.secrets import derive_token
from core.signing import SigningKey, signing_key_load
from inference.messages import GENESIS_HASH, FinishReason, JournalEntry, SignedEntry


@dataclass
class JournalServer:
    """One worker's journal. ``busy`` answers 503 to every single look-up, as a request in flight does.

    ``raw`` answers every single look-up with these bytes, whole HTTP response and all; the last of them is
    repeated until the other end has had enough (``written`` counts) where ``endless``.
    """

    folder: Path
    secret: str
    worker_id: str = field(default_factory=lambda: new_id("wrk"))
    busy: bool = False
    asked: int = 0
    raw: bytes = b""
    endless: bytes = b""
    written: int = 0
    signed: dict[str, SignedEntry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.key: SigningKey = signing_key_load(self.folder / f"{self.worker_id}.pem")
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._http.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Die: connections are refused from now on."""
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
            self._http.server_close()

    def serve(
        self, request_id: str, *, counts: tuple[int, int, int] = (100, 0, 9), finish: FinishReason = "stop"
    ) -> SignedEntry:
        """Journal a served request with (prompt, cached, completion) tokens."""
        now_ms = clock.now_ms()
        before = self.signed.get(request_id)
        entry = JournalEntry(
            seq=before.entry.seq if before else len(self.signed),
            prev_hash=GENESIS_HASH,
            worker_id=self.worker_id,
            request_id=request_id,
            model="tokenworks-nano",
            release_digest="d" * 64,
            prompt_tokens=counts[0],
            cached_tokens=counts[1],
            completion_tokens=counts[2],
            finish_reason=finish,
            received_at_ms=now_ms - 90,
            first_token_at_ms=now_ms - 50,
            finished_at_ms=now_ms,
            output_sha256="0" * 64,
        )
        self.signed[request_id] = SignedEntry(entry, self.key.sign(entry.signing_bytes()))
        return self.signed[request_id]

    def forge(self, request_id: str, completion_tokens: int) -> None:
        """Change a count after signing."""
        signed = self.signed[request_id]
        self.signed[request_id] = replace(
            signed, entry=replace(signed.entry, completion_tokens=completion_tokens)
        )

    def answer(self, path: str, bearer: str | None) -> tuple[int, Any]:
        """Status and body for a GET."""
        if bearer != f"Bearer {derive_token(self.secret, 'dispatch', self.worker_id)}":
            return 401, {}
        url = urlsplit(path)
        if url.path == "/journal":
            query = {name: int(values[0]) for name, values in parse_qs(url.query).items()}
            later = [one for one in self.signed.values() if one.entry.seq > query["after_seq"]]
            return 200, [one.to_dict() for one in later[: query["limit"]]]
        self.asked += 1
        if self.busy:
            return 503, {}
        found = self.signed.get(url.path.removeprefix("/journal/"))
        return (200, found.to_dict()) if found else (404, {})


def _handler(server: JournalServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if server.raw:
                self.close_connection = True
                self.wfile.write(server.raw)
                while server.endless and server.written < 32 * 2**20:
                    server.written += self.wfile.write(server.endless)
                return
            status, body = server.answer(self.path, self.headers.get("authorization"))
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's signature
            """Silence."""

        def handle(self) -> None:
            with suppress(ConnectionError):  # the other end may go whenever it likes
                super().handle()

    return Handler
