"""The processes of one run, each with only the secrets its work needs.

========  =============================================================================
gateway   Redis and the dispatch secret; no database
control   Redis, the tenant-facing and the system role; not the owner
meter     the same
worker    neither database nor Redis: a token file and the control plane's address
========  =============================================================================
"""

from __future__ import annotations

from stack.layout import ROOT, Layout, WorkerPlan, base_environment
from stack.ports import LOOPBACK
from stack.programs import Program, python_program, service_program
from stack.roles import RoleUrls
from stack.services import EmbeddedPostgres, EmbeddedValkey

_STAGE_GATEWAY, _STAGE_WORKER, _STAGE_CONTROL, _STAGE_VALKEY, _STAGE_POSTGRES = range(5)
_DRAIN_S = 25.0


def programs_for(
    layout: Layout,
    *,
    postgres: EmbeddedPostgres | None,
    valkey: EmbeddedValkey | None,
    redis_url: str,
    roles: RoleUrls,
) -> list[Program]:
    """Everything the supervisor runs, in the order it is shown."""
    services = [
        *([service_program(postgres, stage=_STAGE_POSTGRES)] if postgres else []),
        *([service_program(valkey, stage=_STAGE_VALKEY)] if valkey else []),
    ]
    shared = shared_environment(layout, redis_url)
    databases = {"DATABASE_APP_URL": roles.app, "DATABASE_SYSTEM_URL": roles.system}
    return [
        *services,
        _control(layout, {**shared, **databases, "TOKENWORKS_SECRET_KEY": layout.secret_key}),
        _gateway(layout, shared),
        _meter(layout, {**shared, **databases, "TOKENWORKS_SECRET_KEY": layout.secret_key}),
        *(_worker(layout, worker) for worker in layout.workers),
    ]


def shared_environment(layout: Layout, redis_url: str) -> dict[str, str]:
    """What control, gateway and meter all read."""
    return {
        **base_environment(),
        "REDIS_URL": redis_url,
        "TOKENWORKS_DISPATCH_SECRET": layout.dispatch_secret,
        "TOKENWORKS_STATE_DIR": str(layout.state_dir),
        "TOKENWORKS_GATEWAY_URL": layout.url("gateway"),
        "TOKENWORKS_CONTROL_URL": layout.url("control"),
    }


def control_arguments(port: int) -> list[str]:
    """No proxy stands before it here: a client's word on who it is (X-Forwarded-For) counts nothing."""
    return [
        "-m", "uvicorn", "config.asgi:application", "--host", LOOPBACK, "--port", str(port),
        "--no-proxy-headers", "--no-access-log", "--no-server-header", "--log-level", "warning",
        "--timeout-graceful-shutdown", "20",
    ]  # fmt: skip


def _control(layout: Layout, env: dict[str, str]) -> Program:
    port = layout.ports["control"]
    return python_program(
        "control", control_arguments(port), port=port, stage=_STAGE_CONTROL, env=env, cwd=ROOT
    )


def _gateway(layout: Layout, env: dict[str, str]) -> Program:
    port = layout.ports["gateway"]
    return python_program(
        "gateway",
        ["-m", "gateway.run", "--host", LOOPBACK, "--port", str(port), "--drain-seconds", "20"],
        port=port,
        stage=_STAGE_GATEWAY,
        env=env,
        cwd=ROOT,
        stop_deadline_s=_DRAIN_S,
    )


def _meter(layout: Layout, env: dict[str, str]) -> Program:
    port = layout.ports["meter"]
    env = {**env, "TOKENWORKS_METRICS_PORT": str(port)}
    return python_program("meter", ["-m", "metering.run"], port=port, stage=_STAGE_CONTROL, env=env, cwd=ROOT)


def _worker(layout: Layout, worker: WorkerPlan) -> Program:
    port = layout.ports[worker.name]
    arguments = [
        "-m", "inference.worker",
        "--name", worker.name,
        "--model-dir", str(layout.model_dir),
        "--release", worker.release,
        "--control-url", layout.url("control"),
        "--token-file", str(layout.token_file(worker.name)),
        "--state-dir", str(layout.worker_dir(worker.name)),
        "--host", LOOPBACK,
        "--port", str(port),
        "--threads", "1",
    ]  # fmt: skip
    env = {**base_environment(), "OMP_NUM_THREADS": "1"}
    return python_program(
        worker.name,
        arguments,
        port=port,
        stage=_STAGE_WORKER,
        env=env,
        cwd=ROOT,
        stop_deadline_s=_DRAIN_S,
    )
