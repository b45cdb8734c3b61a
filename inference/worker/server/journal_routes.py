"""Reading the journal: what a gateway's sweeper and an auditor ask for."""

from __future__ import annotations

from inference.worker.refusal import RefusalError
from inference.worker.runtime import Runtime
from inference.worker.server.asgi import Receive, Scope, Send, query_int, respond_json

MAX_PAGE = 1000


async def journal_entry(runtime: Runtime, request_id: str, send: Send) -> None:
    """``GET /journal/{request_id}``: the signed entry; 404 when there is none and none is coming.

    While the request is being served the answer is 503: its entry follows, so nobody may take it for void.
    """
    service = runtime.service
    found = service.journal.find(request_id) if service is not None else None
    if found is None:
        if request_id in runtime.in_flight:
            raise RefusalError(503, "This request is being served.", code="in_flight", retry_after_ms=1000)
        raise RefusalError(404, "This worker has no entry for this request.", code="not_found")
    await respond_json(send, 200, found.to_dict())


async def journal_page(runtime: Runtime, scope: Scope, receive: Receive, send: Send) -> None:
    """``GET /journal?after_seq=&limit=``: signed entries in order, and whether more follow."""
    after_seq = query_int(scope, "after_seq", default=-1, low=-1, high=2**53)
    limit = query_int(scope, "limit", default=100, low=1, high=MAX_PAGE)
    service = runtime.service
    entries = [] if service is None else service.journal.page(after_seq=after_seq, limit=limit)
    await respond_json(send, 200, [signed.to_dict() for signed in entries])
