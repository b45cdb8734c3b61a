"""LoRA adapters of a worker: listed, loaded from its own folder, dropped. For the holder of the bearer."""

from __future__ import annotations

import re
from pathlib import Path

from inference.engine.types import RequestRejected
from inference.worker.logs import log_event
from inference.worker.refusal import RefusalError, invalid, overloaded
from inference.worker.runtime import Runtime, Service
from inference.worker.server.asgi import Send, respond_json

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


async def adapters_list(runtime: Runtime, send: Send) -> None:
    """``GET /adapters``: names of those that take requests."""
    await respond_json(send, 200, {"adapters": list(runtime.serving().engine.adapters)})


async def adapter_put(runtime: Runtime, name: str, send: Send) -> None:
    """``PUT /adapters/{name}``: serve the folder of that name; loaded already with the same files is no
    change.
    """
    service = runtime.serving()
    folder = _folder(service, name)
    try:
        await service.engine.adapter_load(name, folder)
    except RequestRejected as error:
        raise _refused(error) from None
    log_event("adapter_loaded", adapter=name)
    await respond_json(send, 200, {"adapter": name})


async def adapter_delete(runtime: Runtime, name: str, send: Send) -> None:
    """``DELETE /adapters/{name}``: no new requests; those in flight end as they began."""
    service = runtime.serving()
    if name not in service.engine.adapters:
        raise RefusalError(404, f"No adapter {name!r} is loaded.", code="not_found")
    try:
        await service.engine.adapter_drop(name)
    except RequestRejected as error:
        raise _refused(error) from None
    log_event("adapter_dropped", adapter=name)
    await respond_json(send, 200, {"adapter": name})


def _folder(service: Service, name: str) -> Path:
    if service.adapters_dir is None:
        raise RefusalError(404, "This worker was started without --adapters-dir.", code="not_found")
    if not _NAME.fullmatch(name):
        message = "An adapter's name has up to 63 small letters, digits, dots, dashes and underscores."
        raise invalid(message, code="invalid_name")
    folder = service.adapters_dir / name
    if not folder.is_dir():
        raise RefusalError(404, f"This worker's folder of adapters has no {name!r}.", code="not_found")
    return folder


def _refused(error: RequestRejected) -> RefusalError:
    if error.code == "adapter_refused":
        return invalid(f"{error}.", code="adapter_refused")
    return overloaded("This worker is stopping. Try again.")
