"""The same scores from the worker's HTTP as from transformers, by lm_eval.

`python -m bench.lm_eval_check --lm-eval ENV/bin/lm_eval --data DIR [--model DIR] [--items N]`

lm_eval 0.4 lives in an environment of its own (`pip install 'lm_eval[api,hf]==0.4.13'`). Its
`local-completions` asks a worker that this program starts, its `hf` runs the same folder in fp32. Compared
are the scores, every log likelihood, and every greedy continuation.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.lm_eval_results import compare_runs
from bench.lm_eval_tasks import tasks_write
from bench.lm_eval_worker import TOKEN, worker_serving
from bench.report import FOLDER, report
from inference.engine.types import WEIGHTS, EngineConfig
from inference.models import loader

NANO = Path(loader.__file__).parent / "nano"
_HTTP_AT_ONCE = 8
# left alone, `hf` asks the tokenizer and `local-completions` does not
_BOTH = {"add_bos_token": True}


def main(arguments: Sequence[str] | None = None) -> None:
    options = _options(arguments)
    asyncio.run(_check(options))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.lm_eval_check")
    parser.add_argument("--lm-eval", type=Path, required=True, help="the program in its own environment")
    parser.add_argument("--data", type=Path, required=True, help="folder with MMLU, GSM8K and HumanEval")
    parser.add_argument("--model", type=Path, default=NANO, help="checkpoint folder")
    parser.add_argument("--items", type=int, default=40, help="items of each task")
    parser.add_argument("--weights", choices=WEIGHTS, default="float32", help="of the worker")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(arguments)


async def _check(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, model = Path(name), options.model.resolve()
        tasks = tasks_write(data=options.data, folder=folder / "tasks", items=options.items)
        config = EngineConfig(threads=options.threads, weights=options.weights)
        async with worker_serving(model, folder, config) as url:
            settings = {
                "model": "tokenworks",
                "base_url": f"{url}/v1/completions",
                "tokenizer": model,
                "tokenizer_backend": "huggingface",
                "num_concurrent": _HTTP_AT_ONCE,
                "max_length": 4096,
                **_BOTH,
            }
            await _lm_eval(options, folder, "local-completions", settings, tasks)
        await _lm_eval(options, folder, "hf", {"pretrained": model, "dtype": "float32", **_BOTH}, tasks)
        rows = compare_runs(folder / "local-completions", folder / "hf", tasks)
    report("lm_eval", rows, title=f"lm_eval, {options.items} items a task: worker against transformers")
    print(f"written to {FOLDER}")


async def _lm_eval(
    options: argparse.Namespace, folder: Path, kind: str, settings: dict[str, object], tasks: list[str]
) -> None:
    """Run it on all tasks; results and samples land in `folder`/`kind`."""
    process = await asyncio.create_subprocess_exec(
        str(options.lm_eval),
        "--model",
        kind,
        "--model_args",
        ",".join(f"{key}={value}" for key, value in settings.items()),
        "--tasks",
        ",".join(tasks),
        "--include_path",
        str(folder / "tasks"),
        "--output_path",
        str(folder / kind),
        "--device",
        "cpu",
        "--batch_size",
        "1",
        "--log_samples",
        env={
            **os.environ,
            "OPENAI_API_KEY": TOKEN,
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(folder / "datasets"),
            "OMP_NUM_THREADS": str(options.threads),
            "TOKENIZERS_PARALLELISM": "false",
        },
    )
    if await process.wait() != 0:
        raise RuntimeError(f"lm_eval with {kind} failed")


if __name__ == "__main__":
    main()
