"""Everything between the start of the process and the first request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx

from inference.engine import AsyncEngine
from inference.messages import Capacity
from inference.worker.journal.errors import JournalError
from inference.worker.journal.journal import Journal
from inference.worker.logs import log_event
from inference.worker.membership.enrol import Candidate
from inference.worker.membership.errors import ConfigurationError
from inference.worker.membership.join import identity_obtain
from inference.worker.membership.release import LocalRelease, release_read
from inference.worker.options import WorkerOptions
from inference.worker.runtime import Service
from inference.worker.signing import WorkerKey, key_load


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the files of this machine give, before the control plane is asked."""

    engine: AsyncEngine
    release: LocalRelease
    journal: Journal
    key: WorkerKey


async def files_load(options: WorkerOptions) -> Loaded:
    """Load model, key and journal, and hash the release. Raises ConfigurationError."""
    try:
        return await asyncio.to_thread(_load, options)
    except JournalError as error:
        raise ConfigurationError(
            f"the journal in {options.state_dir.name} cannot be used: {error}"
        ) from error
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"this worker's files cannot be used: {error}") from error


async def service_start(
    options: WorkerOptions, loaded: Loaded, endpoint: str, client: httpx.AsyncClient
) -> Service:
    """Enrol, or go on as the worker known already, and start the engine. Raises StartupError's kinds."""
    candidate = Candidate(
        name=options.name,
        endpoint=endpoint,
        release=options.release,
        control_url=options.control_url,
        files=loaded.release,
        key=loaded.key,
        capacity=Capacity(
            max_running=options.engine.max_running,
            cache_tokens=options.engine.pages * options.engine.page_size,
            max_model_len=loaded.engine.max_model_len,
        ),
    )
    identity = await identity_obtain(
        candidate=candidate,
        identity_file=options.identity_file,
        token_file=options.token_file,
        client=client,
    )
    await loaded.engine.start()
    return Service(
        engine=loaded.engine,
        journal=loaded.journal,
        enrolment=identity.enrolment,
        release_digest=loaded.release.digest,
    )


def _load(options: WorkerOptions) -> Loaded:
    key = key_load(options.key_file)
    journal = Journal(options.journal_dir, key)
    try:
        release = release_read(options.model_dir)
        engine = AsyncEngine.load(options.model_dir, options.engine)
    except BaseException:
        journal.close()
        raise
    log_event("model_loaded", release_digest=release.digest, max_model_len=engine.max_model_len)
    return Loaded(engine=engine, release=release, journal=journal, key=key)
