"""A task score: the next line of held-out text, answered greedily by the engine, once each way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from inference.engine.changes import Changes
from inference.engine.core import Engine
from inference.engine.runner import Runner
from inference.engine.types import EngineConfig, GenerationRequest, SamplingParams
from inference.models.decoder import Decoder
from inference.routing.profile import RoutingProfile
from inference.routing_profile.paired import Interval, mcnemar, mean_interval
from inference.tokenizer import Tokenizer

_PROMPT_TOKENS = 192
_ANSWER_TOKENS = 48
_BEFORE_CHARACTERS = 4 * _PROMPT_TOKENS
_LEAST_BEFORE = 200  # characters: a line with nothing before it is a guess
_SHORTEST = 4  # characters: `)` and `}` prove nothing


@dataclass(frozen=True, slots=True)
class LineTask:
    """A prompt that ends where a line begins, after its indentation, and that line."""

    prompt: tuple[int, ...]
    line: str


@dataclass(frozen=True, slots=True)
class TaskScores:
    """Lines that came out exactly, and the share of a line's characters that were right before the first
    wrong one (percent, and points of difference). `p_value` is McNemar's exact one of the lines.
    """

    tasks: int
    dynamic_exact: int
    fixed_exact: int
    lost: int
    won: int
    p_value: float
    dynamic_prefix: float
    fixed_prefix: float
    delta_prefix: Interval
    fell_back: float


def line_tasks(texts: Iterable[str], tokenizer: Tokenizer, *, count: int) -> list[LineTask]:
    """Up to `count` lines, evenly spread over the texts."""
    found = [(text, start) for text in texts for start in _line_starts(text)]
    step = max(len(found) // count, 1)
    return [_task(text, start, tokenizer) for text, start in found[::step][:count]]


def tasks_score(
    model: Decoder, tokenizer: Tokenizer, profile: RoutingProfile, tasks: Sequence[LineTask]
) -> TaskScores:
    """Answer all tasks with dynamic routing and under the profile, which falls back where it has to."""
    dynamic, _ = _answers(model, tokenizer, profile, tasks, fixed=False)
    fixed, fell_back = _answers(model, tokenizer, profile, tasks, fixed=True)
    exact = [
        [answer.strip() == task.line for answer, task in zip(side, tasks, strict=True)]
        for side in (dynamic, fixed)
    ]
    prefix = [
        np.array([_right_share(answer, task.line) for answer, task in zip(side, tasks, strict=True)])
        for side in (dynamic, fixed)
    ]
    lost = sum(a and not b for a, b in zip(*exact, strict=True))
    won = sum(b and not a for a, b in zip(*exact, strict=True))
    return TaskScores(
        tasks=len(tasks),
        dynamic_exact=sum(exact[0]),
        fixed_exact=sum(exact[1]),
        lost=lost,
        won=won,
        p_value=mcnemar(lost, won),
        dynamic_prefix=100 * float(prefix[0].mean()),
        fixed_prefix=100 * float(prefix[1].mean()),
        delta_prefix=mean_interval(100 * (prefix[1] - prefix[0]), np.ones(len(tasks), dtype=np.int64)),
        fell_back=fell_back / len(tasks),
    )


def _line_starts(text: str) -> Iterator[int]:
    start = 0
    for line in text.splitlines(keepends=True):
        body = line.strip()
        if start >= _LEAST_BEFORE and len(body) >= _SHORTEST:
            yield start + len(line) - len(line.lstrip())
        start += len(line)


def _task(text: str, start: int, tokenizer: Tokenizer) -> LineTask:
    before = tokenizer.encode(text[max(start - _BEFORE_CHARACTERS, 0) : start], add_bos=False)
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    line = text[start:].split("\n", 1)[0].strip()
    return LineTask((*begin, *before[-_PROMPT_TOKENS:]), line)


def _right_share(answer: str, line: str) -> float:
    pairs = zip(answer.strip(), line, strict=False)  # one of them ends first
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) / len(line)


def _answers(
    model: Decoder,
    tokenizer: Tokenizer,
    profile: RoutingProfile,
    tasks: Sequence[LineTask],
    *,
    fixed: bool,
) -> tuple[list[str], int]:
    """The answers, and how many of them fell back."""
    changes = Changes(profiles=[profile], routers=model.routers, vocabulary=model.config.vocab_size)
    config = EngineConfig(max_running=8, step_token_budget=256, pages=512)
    engine = Engine(
        config=config,
        runner=Runner(model, config, changes=changes),
        eos_ids=tokenizer.eos_ids,
        token_bytes=tokenizer.token_bytes,
        changes=changes,
    )
    params = SamplingParams(max_tokens=_ANSWER_TOKENS, temperature=0, stop=("\n",))
    routing = profile.id if fixed else None
    for number, task in enumerate(tasks):
        engine.submit(GenerationRequest(str(number), task.prompt, params, routing=routing))
    texts, fell_back = [""] * len(tasks), 0
    while engine.has_work:
        for event in engine.step():
            texts[int(event.request_id)] += event.text
            fell_back += event.finish_reason is not None and event.routing not in {None, profile.id}
    return texts, fell_back
