"""One run of the stack on paper: folders, ports, secrets, and which worker serves which pool."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from governance.charter import CharterDocument, charter_load
from stack.files import secret_load, write_private
from stack.ports import LOOPBACK, free_port, is_free, port_from_env

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class WorkerPlan:
    """One worker: a partner's pool and the release it serves there."""

    name: str
    pool: str
    release: str


@dataclass(frozen=True)
class Layout:
    """Everything decided before the first process starts. Paths are absolute."""

    state_dir: Path
    model_dir: Path
    charter: Path
    workers: tuple[WorkerPlan, ...]
    ports: Mapping[str, int]
    postgres_url: str | None  # a server of the user's, with rights to create roles; None: embedded
    redis_url: str | None  # likewise
    secret_key: str
    dispatch_secret: str

    def url(self, name: str) -> str:
        """Base URL of an HTTP process."""
        return f"http://{LOOPBACK}:{self.ports[name]}"

    @property
    def log_dir(self) -> Path:
        """One log per process."""
        return self.state_dir / "log"

    @property
    def model(self) -> str:
        """The model the demo asks for: the first worker's release."""
        return self.workers[0].release

    def token_file(self, worker: str) -> Path:
        """Where the worker finds its one-time enrolment token."""
        return self.state_dir / "tokens" / worker

    def worker_dir(self, worker: str) -> Path:
        """The worker's key, identity and journal."""
        return self.state_dir / "workers" / worker


def layout_make(*, state_dir: Path, model_dir: Path, charter: Path, env: Mapping[str, str]) -> Layout:
    """Decide a run. Ports are those the environment names, else the last run's, else free ones.

    Raises ValueError (CharterError among them) or OSError when charter or environment cannot be used.
    """
    workers = workers_plan(charter_load(charter))
    state_dir.mkdir(parents=True, exist_ok=True)
    secrets = state_dir / "secrets"
    names = ["postgres", "valkey", "control", "gateway", "meter", *(worker.name for worker in workers)]
    return Layout(
        state_dir=state_dir.resolve(),
        model_dir=model_dir.resolve(),
        charter=charter.resolve(),
        workers=workers,
        ports=ports_decide(names, remembered=state_dir / "ports.json", env=env),
        postgres_url=env.get("DATABASE_URL") or None,
        redis_url=env.get("REDIS_URL") or None,
        secret_key=secret_load(secrets / "django"),
        dispatch_secret=secret_load(secrets / "dispatch"),
    )


def workers_plan(charter: CharterDocument) -> tuple[WorkerPlan, ...]:
    """A worker for each pool, serving the first release its partner offers."""
    return tuple(
        WorkerPlan(
            name=f"worker-{partner.slug if len(partner.pools) == 1 else pool.slug}",
            pool=pool.slug,
            release=partner.offers[0].release,
        )
        for partner in charter.partners
        if partner.offers
        for pool in partner.pools
    )


def port_variable(name: str) -> str:
    """The environment variable that names the port of a process."""
    return f"TOKENWORKS_{name.upper().replace('-', '_').replace('.', '_')}_PORT"


def ports_decide(names: list[str], *, remembered: Path, env: Mapping[str, str]) -> dict[str, int]:
    """A port for each name, remembered for the next run. Raises ValueError for a bad or taken one."""
    last: dict[str, int] = json.loads(remembered.read_text()) if remembered.exists() else {}
    ports: dict[str, int] = {}
    for name in names:
        if env.get(port_variable(name)):
            port = port_from_env(port_variable(name), env)
            if not is_free(port):
                raise ValueError(f"{port_variable(name)}={port}: another program uses this port")
        else:
            port = last.get(name, 0)
            while not port or port in ports.values() or not is_free(port):
                port = free_port()
        ports[name] = port
    write_private(remembered, json.dumps(ports))
    return ports


def base_environment() -> dict[str, str]:
    """What every process may know: where programs are, the language, and no secret."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")
    present = {name: os.environ[name] for name in kept if name in os.environ}
    return {"PATH": os.defpath, **present, "PYTHONUNBUFFERED": "1", "PYTHONSAFEPATH": "1"}
