"""llama.cpp: built from the sources that a PyPI package carries, fed with converted checkpoints."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Literal

from bench.peers.fetch import run_logged, sdist_unpack
from bench.peers.process import ROOT, START_LIMIT_S, SideError
from bench.peers.work import Work

PACKAGE = "llama-cpp-python==0.3.36"
TARGETS = ("llama-batched-bench", "llama-quantize")
GgufFormat = Literal["bf16", "q8_0"]


@dataclass(frozen=True, slots=True)
class LlamaFolder:
    """What lies where under the folder of peers."""

    folder: Path

    @property
    def sources(self) -> Path:
        """llama.cpp's own root, in the unpacked package."""
        return self.folder / "llama_cpp_python" / "vendor" / "llama.cpp"

    @property
    def build(self) -> Path:
        return self.folder / "llama-build"

    def program(self, name: str) -> Path:
        return self.build / "bin" / name

    @property
    def ready(self) -> bool:
        return all(self.program(name).exists() for name in TARGETS)

    def gguf(self, model: Path, kind: GgufFormat) -> Path:
        return self.folder / "gguf" / f"{model.name}-{kind}.gguf"


def setup(peers: LlamaFolder, *, jobs: int) -> None:
    """Download, unpack and build with this machine's instructions; what is there is left alone."""
    if not peers.sources.exists():
        sdist_unpack(PACKAGE, peers.folder / "llama_cpp_python", scratch=peers.folder / "download")
    if peers.ready:
        return
    flags = ("-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF")
    log = peers.folder / "llama-build.log"
    run_logged(["cmake", "-S", str(peers.sources), "-B", str(peers.build), *flags], log)
    targets = [part for name in TARGETS for part in ("--target", name)]
    run_logged(["cmake", "--build", str(peers.build), "--parallel", str(jobs), *targets], log)


def convert(peers: LlamaFolder, model: Path, kind: GgufFormat) -> Path:
    """The checkpoint as GGUF, made once; one that is older than the checkpoint is made again."""
    target = peers.gguf(model, kind)
    newest = max(file.stat().st_mtime for file in model.iterdir())
    if target.exists() and target.stat().st_mtime > newest:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    log = peers.folder / "gguf" / f"{target.stem}.log"
    if kind == "bf16":
        command = [sys.executable, "-m", "bench.peers.gguf_write", str(peers.sources), str(model), str(part)]
    else:
        whole = convert(peers, model, "bf16")
        command = [str(peers.program("llama-quantize")), str(whole), str(part), "Q8_0"]
    run_logged(command, log, cwd=ROOT)
    return part.replace(target)


class LlamaSide:
    """`llama-batched-bench`, started anew for each work; the prompt is read once and shared by all sequences,
    which changes nothing in the timed part.
    """

    def __init__(self, peers: LlamaFolder, gguf: Path, *, threads: int) -> None:
        self._program = peers.program("llama-batched-bench")
        self._gguf = gguf
        self._threads = threads
        self.peak_bytes = 0

    def rate(self, work: Work) -> float:
        """Tokens per second."""
        new = work.new if work.kind == "decode" else 1
        sizes = {"-npp": work.prompt, "-ntg": new, "-npl": work.batch}
        # Each sequence has its own stretch of the context, of a size that the program rounds down to.
        context = work.batch * (-(-(work.prompt + new + 1) // 256) * 256)
        limits = {"-c": context, "-b": 2048, "-ub": 512, "-t": self._threads, "-tb": self._threads}
        options = [str(part) for pair in (sizes | limits).items() for part in pair]
        if work.batch > 1:
            options.append("-pps")
        command = [str(self._program), "-m", str(self._gguf), *options, "--output-format", "jsonl"]
        answer = self._run(command)
        return float(answer["speed_tg" if work.kind == "decode" else "speed_pp"])

    def close(self) -> None:
        """Nothing runs between works."""

    def _run(self, command: list[str]) -> dict[str, float]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        limit = Timer(START_LIMIT_S, process.kill)
        limit.start()
        lines = [line.rstrip() for line in process.stdout or ()]
        limit.cancel()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.peak_bytes = max(self.peak_bytes, usage.ru_maxrss * 1024)
        found = [line for line in lines if line.startswith("{")]
        if not found:
            raise SideError(f"llama-batched-bench said nothing: {lines[-1:]}")
        answer: dict[str, float] = json.loads(found[-1])
        return answer
