"""What the prefix cache's bench counts, on traces whose answer is plain."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from bench.mooncake import PAGE, TraceRequest, trace_read
from bench.prefix_cache import found_share, main, scheduler_share


def request(blocks: tuple[int, ...], arrival_s: float = 0.0) -> TraceRequest:
    return TraceRequest(arrival_s, blocks, prompt=len(blocks) * PAGE, new=1)


def test_lengths_are_scaled_and_names_become_equal_tokens(tmp_path: Path) -> None:
    lines = [
        {"timestamp": 2000, "input_length": 700, "output_length": 10, "hash_ids": [0, 1]},
        {"timestamp": 1000, "input_length": 1024, "output_length": 640, "hash_ids": [0, 2]},
    ]
    path = tmp_path / "trace.jsonl.gz"
    path.write_bytes(gzip.compress("\n".join(json.dumps(line) for line in lines).encode()))
    first, second = trace_read(path)
    assert (first.arrival_s, first.prompt, first.new) == (1.0, 32, 20)
    assert (second.arrival_s, second.prompt, second.new) == (2.0, 22, 1)
    assert first.tokens()[:PAGE] == second.tokens()[:PAGE]
    assert not set(first.tokens()[PAGE:]) & set(second.tokens()[PAGE:])
    path.write_bytes(gzip.compress(b'{"timestamp": 1}\n'))
    with pytest.raises(ValueError, match="not a line of the trace"):
        trace_read(path)


def test_shares_of_a_trace_that_can_be_counted_by_hand() -> None:
    trace = [request((0, 1)), request((0, 1, 2), 60.0), request((3, 4), 120.0), request((0, 1, 2), 180.0)]
    # two blocks of the second; of the fourth the third would hold its last token, which is always computed
    assert found_share(trace, None) == pytest.approx(4 / 10)
    assert scheduler_share(trace, 64) == pytest.approx(4 / 10)
    # four blocks: the third request pushes out what the fourth would have found, from its end
    assert found_share(trace, 4) == pytest.approx((2 + 2) / 10)
    assert found_share(trace, 2) == pytest.approx(2 / 10)


def test_the_table_and_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    line = {"timestamp": 0, "input_length": 1500, "output_length": 64, "hash_ids": [5, 6, 7]}
    path = tmp_path / "trace.gz"
    path.write_bytes(
        gzip.compress(f"{json.dumps(line)}\n{json.dumps(line | {'timestamp': 9000})}\n".encode())
    )
    main(["--trace", str(path), "--pages", "16"])
    rows = json.loads((tmp_path / "build/bench/prefix_cache.json").read_text())
    assert [row["value"] for row in rows] == [pytest.approx(32 / 94)] * 2
    assert (tmp_path / "build/bench/prefix_cache.svg").stat().st_size > 1000
