"""The engine of `bench.worker_front`: a token a step for everybody, and nothing computed."""

from __future__ import annotations

import os
import socket
import sys
import time

from inference.engine.loop import FrontGoneError
from inference.engine.serving import SocketLine
from inference.engine.types import EngineStats, GenerationRequest, TokenEvent
from inference.engine.wire import Cancel, Ended, Ready, Stepped, Stop, Submit, frame_encode

_TEXTS = (" the", "re", " is", "n't", " any", "thing", ",", " here")


def serve(line: SocketLine, pause_s: float) -> None:
    """Until the front is gone."""
    line.open()
    line.send(frame_encode(Ready(4096, 264)))
    running: dict[str, tuple[GenerationRequest, int]] = {}
    stats = EngineStats(
        running=0, queued=0, pages_total=0, pages_free=0, generated_tokens=0, steps=0, max_running=0
    )
    while True:
        for command in line.take(wait=not running):
            match command:
                case Submit(request):
                    running[request.request_id] = request, 0
                case Cancel(request_id):
                    running.pop(request_id, None)
                case Stop():
                    line.publish(Ended([], stats, "cancelled"))
                    return
                case _:
                    raise ValueError(f"not for this engine: {command}")
        line.publish(Stepped([_event(running, name) for name in list(running)], stats))
        time.sleep(pause_s)


def _event(running: dict[str, tuple[GenerationRequest, int]], name: str) -> TokenEvent:
    request, made = running.pop(name)
    made += 1
    done = made >= request.params.max_tokens
    if not done:
        running[name] = request, made
    prompt = len(request.prompt_token_ids)
    return TokenEvent(
        name, _TEXTS[made % len(_TEXTS)], (made % 250,), "length" if done else None, prompt, 0, made
    )


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as end:
        try:
            serve(SocketLine(end), float(os.environ["BENCH_PAUSE_MS"]) / 1000)
        except FrontGoneError:
            sys.exit(0)
