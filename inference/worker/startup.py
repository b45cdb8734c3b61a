"""Everything between the start of the process and the first request."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx

from inference.engine.remote import EngineDiedError, RemoteEngine
from inference.messages import Capacity
from inference.worker.ahead import Ahead
from inference.worker.journal.errors import JournalError
from inference.worker.journal.journal import Journal
from inference.worker.logs import log_event
from inference.worker.membership.enrol import Candidate
from inference.worker.membership.errors import ConfigurationError, StartupError
from inference.worker.membership.join import identity_obtain
from inference.worker.membership.release import LocalRelease
from inference.worker.options import WorkerOptions
from inference.worker.runtime import Service
from inference.worker.signing import WorkerKey, key_load


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the files of this machine give, before the control plane is asked."""

    engine: RemoteEngine
    release: LocalRelease
    journal: Journal
    key: WorkerKey


async def files_load(options: WorkerOptions, ahead: Ahead | None = None) -> Loaded:
    """Load model, key and journal, and hash the release; `ahead` is what of that has begun already. Raises
    StartupError, or ConfigurationError.
    """
    try:
        key, journal = await asyncio.to_thread(_key_and_journal, options)
        try:
            engine, release = await _engine_and_release(options, ahead or Ahead.start(options))
        except BaseException:
            journal.close()
            raise
    except JournalError as error:
        raise ConfigurationError(
            f"the journal in {options.state_dir.name} cannot be used: {error}"
        ) from error
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"this worker's files cannot be used: {error}") from error
    except EngineDiedError as error:
        raise StartupError(str(error)) from error
    log_event(
        "model_loaded",
        release_digest=release.digest,
        max_model_len=engine.max_model_len,
        engine_pid=engine.pid,
    )
    return Loaded(engine=engine, release=release, journal=journal, key=key)


async def service_start(
    options: WorkerOptions, loaded: Loaded, endpoint: str, client: httpx.AsyncClient
) -> Service:
    """Enrol, or go on as the worker known already, in front of the engine. Raises StartupError's kinds."""
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
    return Service(
        engine=loaded.engine,
        journal=loaded.journal,
        enrolment=identity.enrolment,
        release_digest=loaded.release.digest,
        adapters_dir=options.adapters_dir,
    )


def _key_and_journal(options: WorkerOptions) -> tuple[WorkerKey, Journal]:
    key = key_load(options.key_file)
    return key, Journal(options.journal_dir, key)


async def _engine_and_release(options: WorkerOptions, ahead: Ahead) -> tuple[RemoteEngine, LocalRelease]:
    """The release is hashed while the engine's process loads the model."""
    fields = {"process": "engine", "worker": options.name}
    launch = asyncio.create_task(
        RemoteEngine.launch(options.model_dir, options.engine, log_fields=fields, child=ahead.child)
    )
    try:
        release = await asyncio.wrap_future(ahead.release)
    except BaseException:
        launch.cancel()
        await asyncio.wait({launch})
        raise
    return await launch, release
