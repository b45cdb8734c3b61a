"""The MoE engine: `AsyncEngine` serves one model; see docs/engine.md for how a step runs.

The boundary's types import neither torch nor the model code, so that a process that only talks to an engine
stays small; `AsyncEngine` is imported when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from inference.engine.types import (
    EngineConfig,
    EngineStats,
    FinishReason,
    GenerationRequest,
    RequestRejected,
    SamplingParams,
    TokenEvent,
)

if TYPE_CHECKING:
    from inference.engine.async_engine import AsyncEngine

__all__ = [
    "AsyncEngine",
    "EngineConfig",
    "EngineStats",
    "FinishReason",
    "GenerationRequest",
    "RequestRejected",
    "SamplingParams",
    "TokenEvent",
]


def __getattr__(name: str) -> object:
    if name == "AsyncEngine":
        return import_module("inference.engine.async_engine").AsyncEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
