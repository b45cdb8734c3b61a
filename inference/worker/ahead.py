"""What a worker begins before it has imported what it needs itself: the two longest parts of its start."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass

from inference.engine.child import EngineChild
from inference.worker.membership.release import LocalRelease, release_begin
from inference.worker.options import WorkerOptions


@dataclass(frozen=True, slots=True)
class Ahead:
    """The engine's process, which imports torch, and the release, which is being hashed."""

    child: EngineChild
    release: Future[LocalRelease]

    @classmethod
    def start(cls, options: WorkerOptions) -> Ahead:
        """Call it in the main thread: the engine's process dies with the thread that started it."""
        return cls(EngineChild.start(options.engine.threads), release_begin(options.model_dir))
