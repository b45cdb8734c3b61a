"""From a flight that ended to its journal entry, metrics and log line."""

from __future__ import annotations

import logging

from inference.messages import SignedEntry
from inference.worker.journal.errors import JournalError
from inference.worker.logs import log_event
from inference.worker.runtime import Runtime, Service
from inference.worker.server.flight import Flight


def flight_journal(service: Service, flight: Flight, runtime: Runtime) -> SignedEntry | None:
    """Write the entry; None when the journal is broken, which also stops new work."""
    fields = flight.entry_fields() | {
        "worker_id": service.enrolment.worker_id,
        "model": runtime.release,
        "release_digest": service.release_digest,
    }
    try:
        signed = service.journal.append(**fields)
    except JournalError as error:
        log_event("journal_failed", level=logging.CRITICAL, error=error, request_id=flight.request_id)
        return None
    _account(flight, runtime, signed)
    return signed


def _account(flight: Flight, runtime: Runtime, signed: SignedEntry) -> None:
    entry, metrics = signed.entry, runtime.metrics
    metrics.requests.labels(flight.endpoint, entry.finish_reason).inc()
    metrics.tokens.labels("prompt").inc(entry.prompt_tokens)
    metrics.tokens.labels("cached").inc(entry.cached_tokens)
    metrics.tokens.labels("completion").inc(entry.completion_tokens)
    log_event(
        "request_served",
        request_id=entry.request_id,
        endpoint=flight.endpoint,
        finish_reason=entry.finish_reason,
        cause=flight.cause,
        prompt_tokens=entry.prompt_tokens,
        cached_tokens=entry.cached_tokens,
        completion_tokens=entry.completion_tokens,
        first_token_ms=None
        if entry.first_token_at_ms is None
        else entry.first_token_at_ms - entry.received_at_ms,
        total_ms=entry.finished_at_ms - entry.received_at_ms,
        seq=entry.seq,
    )
