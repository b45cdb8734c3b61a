"""The command line of a worker."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.engine.types import ACTIVATIONS, DEVICES, WEIGHTS, EngineConfig


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How one worker process was started. ``port`` 0 takes a free one."""

    name: str
    model_dir: Path
    release: str
    control_url: str
    token_file: Path
    state_dir: Path
    host: str
    port: int
    public_url: str | None
    adapters_dir: Path | None
    engine: EngineConfig

    @property
    def journal_dir(self) -> Path:
        """Where the journal's segments lie."""
        return self.state_dir / "journal"

    @property
    def key_file(self) -> Path:
        """The worker's private key."""
        return self.state_dir / "signing.pem"

    @property
    def identity_file(self) -> Path:
        """What the control plane answered at enrolment."""
        return self.state_dir / "identity.json"


def options_parse(arguments: Sequence[str] | None = None) -> WorkerOptions:
    """Read the command line; prints usage and exits with status 2 when it is wrong."""
    parsed = _parser().parse_args(arguments)
    try:
        engine = EngineConfig(
            page_size=parsed.page_size,
            pages=parsed.pages,
            max_running=parsed.max_running,
            step_token_budget=parsed.step_token_budget,
            threads=parsed.threads,
            weights=parsed.weights,
            activations=parsed.activations,
            speculate=parsed.speculate,
            paced=parsed.paced,
            adapters_max=parsed.adapters_max if parsed.adapters_dir else 0,
            adapter_rank_max=parsed.adapter_rank_max,
            routing_profiles=tuple(map(str, parsed.routing_profile)),
            cache_dir=str(parsed.cache_dir or parsed.state_dir / "packed"),
            max_queued=parsed.max_queued,
            ranks=parsed.tensor_parallel,
            expert_layout=parsed.experts,
            device=parsed.device,
            rank_limit_s=parsed.rank_limit,
        )
    except ValueError as error:
        _parser().error(str(error))
    return WorkerOptions(
        name=parsed.name,
        model_dir=parsed.model_dir,
        release=parsed.release,
        control_url=parsed.control_url.rstrip("/"),
        token_file=parsed.token_file,
        state_dir=parsed.state_dir,
        host=parsed.host,
        port=parsed.port,
        public_url=parsed.public_url,
        adapters_dir=parsed.adapters_dir,
        engine=engine,
    )


def cores_available() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_default(cores: int) -> int:
    """HTTP takes a few percent of a core: of two, the engine would lose more by leaving one to it."""
    return cores if cores <= 2 else cores - 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m inference.worker", description="Serve one release and sign what was served."
    )
    text = parser.add_argument
    text("--name", required=True, help="shown in the console and in logs")
    text("--model-dir", required=True, type=Path, help="checkpoint folder of the release")
    text("--release", required=True, help="slug of the release, which is the model's name for clients")
    text("--control-url", required=True, help="base URL of the control plane")
    text(
        "--token-file",
        required=True,
        type=Path,
        help="one-time enrolment token; waited for at the first start",
    )
    text("--state-dir", required=True, type=Path, help="key, identity and journal; keep it across restarts")
    text("--host", default="127.0.0.1", help="address to listen on")
    text("--port", required=True, type=int, help="port to listen on; 0 takes a free one")
    text("--public-url", help="base URL gateways reach this worker at (default: http://HOST:PORT)")
    text("--cache-dir", type=Path, help="where packed weights are kept (default: STATE_DIR/packed)")
    text("--adapters-dir", type=Path, help="folder of LoRA adapters, a folder each, for PUT /adapters/NAME")
    text(
        "--routing-profile",
        type=Path,
        action="append",
        default=[],
        help="a fixed-routing profile to serve; may be repeated",
    )
    sizes = parser.add_argument_group("engine")
    defaults = EngineConfig()
    for name in ("page_size", "pages", "max_running", "step_token_budget", "max_queued", "adapter_rank_max"):
        sizes.add_argument(
            f"--{name.replace('_', '-')}", type=int, default=getattr(defaults, name), metavar="N"
        )
    sizes.add_argument(
        "--threads",
        type=int,
        default=threads_default(cores_available()),
        metavar="N",
        help="the engine's; by default all cores, but one for HTTP where there are more than two",
    )
    sizes.add_argument(
        "--device",
        choices=DEVICES,
        default=defaults.device,
        help="where the model lies: the CPU, the first GPU (CUDA or ROCm) or the first Ascend NPU",
    )
    sizes.add_argument(
        "--tensor-parallel",
        type=int,
        default=1,
        metavar="N",
        help="processes on this machine that run the model together, each with a part of heads and experts",
    )
    sizes.add_argument(
        "--experts",
        choices=("whole", "cut"),
        default="whole",
        help="with --tensor-parallel: all of some experts in each process, or channels of all",
    )
    sizes.add_argument(
        "--rank-limit",
        type=float,
        default=defaults.rank_limit_s,
        metavar="SECONDS",
        help="with --tensor-parallel: a process that keeps the others waiting for so long has failed",
    )
    sizes.add_argument("--adapters-max", type=int, default=8, metavar="N", help="loaded at once")
    sizes.add_argument("--weights", choices=WEIGHTS, default=defaults.weights)
    sizes.add_argument(
        "--activations",
        choices=ACTIVATIONS,
        default=defaults.activations,
        help="what int8 and int4 weights meet: activations rounded to int8, or float ones (closer, slower)",
    )
    sizes.add_argument("--speculate", action="store_true", help="draft tokens with the prediction module")
    sizes.add_argument("--paced", action="store_true", help="hand on tokens at even intervals")
    return parser
