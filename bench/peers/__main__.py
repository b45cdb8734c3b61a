"""`python -m bench.peers setup|check [--peer llama|vllm …] [--folder DIR] [--model DIR …]`: fetch and build
the peers, or say what is there.

Everything lands in the folder named (default `build/peers`, not in the repository): llama.cpp's sources,
build and converted checkpoints, and an environment with vLLM. The environment that runs this is left alone.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from bench.peers import llama, vllm
from bench.peers.fetch import FetchError
from bench.peers.llama import GgufFormat, LlamaFolder
from bench.peers.vllm import VllmFolder

FOLDER = Path("build/peers")
PEERS = {"llama": "llama.cpp", "vllm": "vLLM"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when a peer is missing or could not be had."""
    options = _options(arguments)
    folder: Path = options.folder.resolve()
    llama_folder, vllm_folder = LlamaFolder(folder), VllmFolder(folder)
    wanted = options.peer or PEERS
    failed = False
    if options.action == "setup":
        if "llama" in wanted:
            failed |= _attempt("llama.cpp", lambda: llama.setup(llama_folder, jobs=options.jobs))
        if "vllm" in wanted:
            failed |= _attempt("vLLM", lambda: vllm.setup(vllm_folder, wheel=options.vllm_wheel))
        for model in options.model:
            for kind in get_args(GgufFormat):
                failed |= _attempt(f"{model.name} {kind}", partial(_convert, llama_folder, model, kind))
    there = {"llama": llama_folder.ready, "vllm": vllm_folder.ready}
    states = {PEERS[peer]: there[peer] for peer in wanted}
    for name, ready in states.items():
        print(f"{name}: {'ready' if ready else 'missing'}")
    return 1 if failed or not all(states.values()) else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers")
    parser.add_argument("action", choices=("setup", "check"))
    parser.add_argument("--peer", action="append", choices=tuple(PEERS), help="only that one (default: both)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where everything lands")
    parser.add_argument("--model", type=Path, action="append", default=[], help="checkpoint to convert")
    parser.add_argument("--vllm-wheel", type=Path, help="a wheel to install instead of the published package")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers at once")
    return parser.parse_args(arguments)


def _attempt(name: str, work: Callable[[], object]) -> bool:
    """Whether `work` failed, which is said and does not keep the others from being tried."""
    print(name, flush=True)
    try:
        work()
    except (FetchError, OSError) as error:
        print(f"  {error}", file=sys.stderr)
        return True
    return False


def _convert(folder: LlamaFolder, model: Path, kind: GgufFormat) -> Path:
    return llama.convert(folder, model.resolve(), kind)


if __name__ == "__main__":
    sys.exit(main())
