"""A worker up to its first token, all but its enrolment with a control plane:
`python -m bench.engine_start_worker MODEL WEIGHTS THREADS STATE`.

Says "loaded" when the engine is ready and the release is hashed, and "token" when the first token is there.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from inference.engine.types import GenerationRequest, SamplingParams
from inference.worker.ahead import Ahead
from inference.worker.options import WorkerOptions, options_parse


def main() -> None:
    model, weights, threads, state = sys.argv[1:5]
    options = options_parse(
        [
            *("--name", "bench", "--release", "bench", "--control-url", "http://127.0.0.1:9"),
            *("--model-dir", model, "--weights", weights, "--threads", threads, "--port", "0"),
            *("--state-dir", state, "--token-file", str(Path(state) / "token")),
        ]
    )
    ahead = Ahead.start(options)
    try:
        import inference.worker.main  # noqa: PLC0415, F401 -- all that a worker imports, and when

        asyncio.run(_run(options, ahead))
    finally:
        ahead.child.end()


async def _run(options: WorkerOptions, ahead: Ahead) -> None:
    from inference.worker.startup import files_load  # noqa: PLC0415 -- see above

    loaded = await files_load(options, ahead)
    print("loaded", flush=True)
    params = SamplingParams(max_tokens=1, temperature=0, ignore_eos=True)
    async for _ in loaded.engine.generate(GenerationRequest("first", tuple(range(10, 26)), params)):
        print("token", flush=True)
    await loaded.engine.close()
    loaded.journal.close()


if __name__ == "__main__":
    main()
