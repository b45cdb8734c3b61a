"""What the prediction module's drafts bring: tokens a step and tokens a second, with drafts and without.

`python -m bench.speculation [--model DIR] [--threads N] [--rounds N]`

The project's own model goes on with the beginnings of files that it was not trained on, greedily and at two
temperatures: without drafts, with drafts in every step, and as the engine decides by itself. All three must
write the same text, which is checked; the exit status is 1 where they do not. Times are of whole answers,
reading the prompts included; sides take turns and medians count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Items
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from bench.report import Row, compare, report
from inference.engine.core import Engine
from inference.engine.runner import Runner
from inference.engine.speculation import SpeculationControl
from inference.engine.types import EngineConfig, GenerationRequest, SamplingParams
from inference.models import loader
from inference.models.interface import CausalModel
from inference.models.loader import load_model
from inference.tokenizer import Tokenizer
from inference.train.corpus import SourceText, iter_corpus

NANO = Path(loader.__file__).parent / "nano"
TEMPERATURES = (0.0, 0.6, 1.0)
BATCHES = (1, 8)
PROMPTS, PROMPT, NEW = 8, 120, 200
TARGET = 1.5  # tokens a row and step
PLAIN, ALWAYS, DECIDED = "no drafts", "drafts always", "as the engine decides"
SIDES = (PLAIN, ALWAYS, DECIDED)

Prompt = tuple[int, ...]


class Always(SpeculationControl):
    """Drafts in every step, whether it pays or not."""

    def wanted(self, running: int, *, reading: bool) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Answers:
    """What one engine wrote to all prompts, and what it took."""

    tokens: tuple[Prompt, ...]
    seconds: float
    drafted: int
    accepted: int

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return sum(map(len, self.tokens)) / self.seconds

    @property
    def per_step(self) -> float:
        """Tokens that a row got in a step, on average: each step brings one, and one more for each draft
        that came true. The first tokens, which the prompts' steps bring, do not count.
        """
        decoded = sum(len(answer) - 1 for answer in self.tokens)
        return decoded / (decoded - self.accepted)


@dataclass(frozen=True, slots=True)
class Setting:
    """How answers are asked for."""

    temperature: float
    batch: int

    @property
    def name(self) -> str:
        return "greedy" if self.temperature == 0 else f"temperature {self.temperature:g}"


Found = Mapping[Setting, Mapping[str, Items[Answers]]]


def main(arguments: Items[str] | None = None) -> int:
    """Exit status 1 when drafts changed a text."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    tokenizer = Tokenizer.from_dir(options.model)
    model = load_model(options.model, weights=options.weights, mtp=True)
    if model.mtp is None:
        print(f"{options.model.name} has no prediction module: nothing is measured")
        return 0
    prompts = prompts_cut(iter_corpus(), tokenizer)
    settings = [Setting(temperature, batch) for temperature in TEMPERATURES for batch in BATCHES]
    found = {
        setting: answers_measure(model, prompts[: 2 * setting.batch], setting, rounds=options.rounds, new=NEW)
        for setting in settings
    }
    how = f"{options.model.name}, {options.weights}, {options.threads} thread(s)"
    report("speculation", found_rows(found), title=f"{how}, {len(prompts)} prompts of {PROMPT} + {NEW} new")
    apart = texts_apart(found)
    for problem in apart:
        print(problem)
    return 1 if apart else 0


def _options(arguments: Items[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.speculation")
    parser.add_argument(
        "--model", type=Path, default=NANO, help="checkpoint folder (default: the project's own)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--weights", default="float32")
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of which the median counts")
    return parser.parse_args(arguments)


def prompts_cut(sources: Iterable[SourceText], tokenizer: Tokenizer) -> list[Prompt]:
    """The beginnings of the first held-out documents that are longer than a prompt and its answer."""
    held = (tokenizer.encode(source.text, add_bos=True) for source in sources if source.split == "heldout")
    return [tuple(ids[:PROMPT]) for ids in islice((ids for ids in held if len(ids) > PROMPT + NEW), PROMPTS)]


def answers_measure(
    model: CausalModel, prompts: Items[Prompt], setting: Setting, *, rounds: int, new: int
) -> dict[str, list[Answers]]:
    """Answers of each side, in `rounds` rounds after one that warms up."""
    engines = {side: _engine(model, side, setting.batch) for side in SIDES}
    found: dict[str, list[Answers]] = {side: [] for side in SIDES}
    for turn in range(rounds + 1):
        for side, engine in engines.items():
            answers = answer(engine, prompts, setting.temperature, new=new, salt=str(turn))
            if turn:
                found[side].append(answers)
    return found


def _engine(model: CausalModel, side: str, batch: int) -> Engine:
    config = EngineConfig(max_running=batch, speculate=side != PLAIN)
    return Engine(
        config=config,
        runner=Runner(model, config),
        eos_ids=(),
        token_bytes=(b"",) * model.config.vocab_size,
        speculation=Always() if side == ALWAYS else SpeculationControl(),
    )


def answer(engine: Engine, prompts: Items[Prompt], temperature: float, *, new: int, salt: str) -> Answers:
    """`new` tokens after each prompt, each with its own seed. A new `salt` hides what the cache has."""
    before, written = engine.stats(), {str(number): list[int]() for number in range(len(prompts))}
    began = time.perf_counter()
    for number, prompt in enumerate(prompts):
        params = SamplingParams(max_tokens=new, temperature=temperature, seed=number, ignore_eos=True)
        engine.submit(GenerationRequest(str(number), prompt, params, salt=salt))
    while engine.has_work:
        for event in engine.step():
            written[event.request_id] += event.token_ids
    seconds, after = time.perf_counter() - began, engine.stats()
    return Answers(
        tuple(map(tuple, written.values())),
        seconds,
        after.drafted_tokens - before.drafted_tokens,
        after.accepted_tokens - before.accepted_tokens,
    )


def texts_apart(found: Found) -> list[str]:
    """Which sides wrote something else than the one without drafts."""
    return [
        f"{setting.name}, batch {setting.batch}, {side}: not the text that is written without drafts"
        for setting, sides in found.items()
        for side, runs in sides.items()
        if any(run.tokens != sides[PLAIN][0].tokens for run in runs)
    ]


def found_rows(found: Found) -> list[Row]:
    """What drafts are worth at each temperature, where most texts were written, and the rates of each batch
    beside those without.
    """
    rows: list[Row] = []
    for setting, sides in found.items():
        name = f"{setting.name}, batch {setting.batch}"
        drafting = sides[ALWAYS][0]
        if setting.batch == max(other.batch for other in found):
            rows += [
                compare(f"{setting.name}: tokens a row and step", drafting.per_step, "tokens", limit=TARGET),
                compare(
                    f"{setting.name}: drafts that came true", drafting.accepted / drafting.drafted, "share"
                ),
            ]
        plain = statistics.median(run.rate for run in sides[PLAIN])
        rows += [
            compare(
                f"{name}: {side}",
                statistics.median(run.rate for run in sides[side]),
                "tok/s",
                peer=PLAIN,
                peer_value=plain,
            )
            for side in (ALWAYS, DECIDED)
        ]
    return rows


if __name__ == "__main__":
    sys.exit(main())
