"""The MoE engine: `AsyncEngine` serves one model; see docs/engine.md for how a step runs."""

from inference.engine.async_engine import AsyncEngine
from inference.engine.types import (
    EngineConfig,
    EngineStats,
    FinishReason,
    GenerationRequest,
    RequestRejected,
    SamplingParams,
    TokenEvent,
)

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
