"""What integer weights meet is a choice of the command line, and the engine follows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.engine import AsyncEngine, EngineConfig, GenerationRequest, SamplingParams
from inference.worker.options import options_parse
from moe_ops import native

PROMPT = tuple((37 * i + 11 * i * i) % 250 + 8 for i in range(120))

compiled = pytest.mark.skipif(not native.available(), reason="plain torch never rounds activations")


def config(folder: Path, *more: str) -> EngineConfig:
    """The engine's part of a command line; all of them keep their packed weights in one folder."""
    return options_parse(
        [
            *("--name", "w", "--model-dir", "m", "--release", "r", "--control-url", "http://127.0.0.1:1"),
            *("--token-file", "t", "--state-dir", str(folder), "--port", "0", "--threads", "1"),
            *("--page-size", "4", "--pages", "64", "--max-running", "4", *more),
        ]
    ).engine


async def scores(model_dir: Path, wanted: EngineConfig) -> list[float]:
    """Log probabilities of the prompt's tokens."""
    engine = AsyncEngine.load(model_dir, wanted)
    await engine.start()
    params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0)
    events = [
        event async for batch in engine.stream([GenerationRequest("r", PROMPT, params)]) for _, event in batch
    ]
    await engine.close()
    return [one.logprob for event in events for one in event.prompt_logprobs if one is not None]


def error(found: list[float], exact: list[float]) -> float:
    return sum(abs(a - b) for a, b in zip(found, exact, strict=True)) / len(exact)


@compiled
async def test_float_activations_are_closer_to_the_model_as_published(tiny_dir: Path, tmp_path: Path) -> None:
    exact = await scores(tiny_dir, config(tmp_path, "--weights", "float32"))
    assert len(exact) == len(PROMPT) - 1
    rounded = await scores(tiny_dir, config(tmp_path, "--weights", "int8"))
    closer = await scores(tiny_dir, config(tmp_path, "--weights", "int8", "--activations", "float"))
    assert 0 < error(closer, exact) < error(rounded, exact)
    assert len([one for one in (tmp_path / "packed").iterdir() if one.is_dir()]) == 3
    again = await scores(tiny_dir, config(tmp_path, "--weights", "int8"))  # from its own packed copy
    assert again == rounded


@compiled
async def test_int4_weights_meet_float_activations_too(tiny_dir: Path, tmp_path: Path) -> None:
    """Which is closer is not asked: rounding weights to four bits is the greater error by far."""
    rounded = await scores(tiny_dir, config(tmp_path, "--weights", "int4"))
    floats = await scores(tiny_dir, config(tmp_path, "--weights", "int4", "--activations", "float"))
    assert 0 < error(floats, rounded) < 0.5


@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_float_weights_leave_nothing_to_choose(
    tmp_path: Path, weights: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        config(tmp_path, "--weights", weights, "--activations", "float")
    assert f"with {weights} weights" in capsys.readouterr().err


def test_an_unknown_choice_is_refused() -> None:
    with pytest.raises(ValueError, match="activations: expected one of int8, float"):
        EngineConfig(weights="int8", activations="int4")  # type: ignore[arg-type]  # wrong on purpose
