"""Asking workers what they served: their journals over HTTP, checked against their enrolled keys."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

import httpx
import msgspec

from core.secrets import derive_token
from core.signing import signature_is_valid
from inference.messages import SignedEntry
from partners.models import Worker, WorkerState
from tenants.scope import system_scope
from transparency.receipts import entry_signing_bytes, signed_entry_parse

TIMEOUT_S = 2.0
WHOLE_TIMEOUTS = 5  # a whole answer may take as many times as long as one silence
PAGE = 500
BYTES_MAX = 4 * 1024 * 1024

_PAGE = msgspec.json.Decoder(list[SignedEntry])


@dataclass(frozen=True, slots=True)
class WorkerAddress:
    """Where an enrolled worker answers and whose word it is. ``retired``: need not answer any more."""

    worker_id: str
    partner_id: str
    name: str
    endpoint: str
    public_key: str
    retired: bool


class Silence(Enum):
    """No entry: ``ABSENT`` when the worker says it has none, ``UNKNOWN`` when it may yet have one."""

    ABSENT = "absent"
    UNKNOWN = "unknown"


def workers_known() -> dict[str, WorkerAddress]:
    """All workers ever enrolled, by id, retired ones too."""
    with system_scope():
        return {
            row.id: WorkerAddress(
                worker_id=row.id,
                partner_id=row.pool.partner_id,
                name=row.name,
                endpoint=row.endpoint.rstrip("/"),
                public_key=row.public_key,
                retired=row.state == WorkerState.RETIRED,
            )
            for row in Worker.objects.select_related("pool").order_by("id")
        }


class JournalReader:
    """Reads journals with the dispatch bearer that the control plane gave each worker."""

    def __init__(self, *, dispatch_secret: str, timeout_s: float = TIMEOUT_S) -> None:
        self._secret = dispatch_secret
        self._timeout_s = timeout_s
        self._client = httpx.Client(timeout=timeout_s, trust_env=False)

    def close(self) -> None:
        """Close kept connections."""
        self._client.close()

    def entry(self, worker: WorkerAddress, request_id: str) -> SignedEntry | Silence:
        """The entry of one request. Only a plain 404 counts as absent; a bad signature proves nothing.

        Raises httpx.TransportError when the worker cannot be reached, or its answer has no end.
        """
        response = self._get(worker, f"/journal/{request_id}", {})
        if response.status_code == httpx.codes.NOT_FOUND:
            return Silence.ABSENT
        if response.status_code != httpx.codes.OK:
            return Silence.UNKNOWN
        try:
            signed = signed_entry_parse(response.content)
        except msgspec.DecodeError:
            return Silence.UNKNOWN
        genuine = signed.entry.request_id == request_id and entry_is_signed(worker, signed)
        return signed if genuine else Silence.UNKNOWN

    def entries(self, worker: WorkerAddress, *, after_seq: int = -1) -> Iterator[SignedEntry]:
        """All entries after ``after_seq`` in order. Raises httpx.HTTPError or msgspec.DecodeError."""
        while True:
            response = self._get(worker, "/journal", {"after_seq": after_seq, "limit": PAGE})
            response.raise_for_status()
            page = _page_parse(response.content)
            if not page:
                return
            if page[-1].entry.seq <= after_seq:
                raise msgspec.DecodeError("the journal goes round in a circle")
            yield from page
            after_seq = page[-1].entry.seq

    def _get(self, worker: WorkerAddress, path: str, query: Mapping[str, int]) -> httpx.Response:
        token = derive_token(self._secret, "dispatch", worker.worker_id)
        headers = {"authorization": f"Bearer {token}", "accept-encoding": "identity"}
        url = f"{worker.endpoint}{path}"
        deadline = time.monotonic() + WHOLE_TIMEOUTS * self._timeout_s
        body = bytearray()
        with self._client.stream("GET", url, params=dict(query), headers=headers) as response:
            for part in response.iter_raw():  # as sent: what a worker compressed could become any size
                body += part
                if len(body) > BYTES_MAX or time.monotonic() > deadline:
                    raise httpx.ReadError("the answer has no end", request=response.request)
        return httpx.Response(response.status_code, content=bytes(body), request=response.request)


def _page_parse(raw: bytes) -> list[SignedEntry]:
    try:
        return _PAGE.decode(raw)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None


def entry_is_signed(worker: WorkerAddress, signed: SignedEntry) -> bool:
    """Whether the entry is this worker's, by its enrolled key."""
    return signed.entry.worker_id == worker.worker_id and signature_is_valid(
        public_text=worker.public_key,
        message=entry_signing_bytes(signed.entry),
        signature=signed.signature,
    )
