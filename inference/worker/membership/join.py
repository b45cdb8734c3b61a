"""Deciding at the start whether to enrol or to go on as the worker known already."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import httpx

from inference.worker.logs import log_event
from inference.worker.membership.enrol import Candidate, worker_enrol
from inference.worker.membership.errors import ConfigurationError, RefusedError
from inference.worker.membership.identity import Identity, identity_load, identity_store, token_digest

TOKEN_WAIT_S = 120.0
_TOKEN_POLL_S = 0.1


async def identity_obtain(
    *, candidate: Candidate, identity_file: Path, token_file: Path, client: httpx.AsyncClient
) -> Identity:
    """The worker's identity. Enrols if there is none, if it no longer fits, or with a fresh token.

    Raises StartupError's kinds.
    """
    known = identity_load(identity_file)
    if known is None:
        return await _enrol(candidate, await _token_wait(token_file), identity_file, client)
    problem = known.mismatch(candidate.facts())
    token = _token_read(token_file)
    if token is None or token_digest(token) == known.token_digest:
        if problem is not None:
            raise ConfigurationError(
                f"{known.enrolment.worker_id}: {problem}; it needs a fresh enrolment token"
            )
        return known
    try:
        return await _enrol(candidate, token, identity_file, client)
    except RefusedError as error:
        if problem is not None:
            raise
        log_event("fresh_token_refused", level=logging.WARNING, problem=str(error))
        return known


async def _enrol(candidate: Candidate, token: str, path: Path, client: httpx.AsyncClient) -> Identity:
    identity = await worker_enrol(candidate=candidate, token=token, client=client)
    identity_store(path, identity)
    log_event("enrolled", worker_id=identity.enrolment.worker_id, pool_id=identity.enrolment.pool_id)
    return identity


async def _token_wait(path: Path) -> str:
    for _ in range(int(TOKEN_WAIT_S / _TOKEN_POLL_S)):
        token = _token_read(path)
        if token is not None:
            return token
        await asyncio.sleep(_TOKEN_POLL_S)
    raise ConfigurationError(f"no enrolment token appeared in {path.name} within {TOKEN_WAIT_S:.0f} s")


def _token_read(path: Path) -> str | None:
    """The token, or None while the file is missing or still empty."""
    try:
        return path.read_text(encoding="utf-8").strip() or None
    except FileNotFoundError:
        return None
