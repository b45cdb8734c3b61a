from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from bench.azure import ChatRequest, chat_read

LINES = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:16:46.6805900,1,1
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv.gz"
    path.write_bytes(gzip.compress(LINES.encode()))
    return path


def test_requests_are_in_order_of_arrival_from_the_first_one_on(trace: Path) -> None:
    requests = chat_read(trace)
    assert [one.arrival_s for one in requests] == pytest.approx([0, 4.314579, 60], abs=1e-5)
    assert [(one.prompt, one.new) for one in requests] == [(374, 44), (396, 109), (2, 2)]


def test_lengths_are_scaled_down_to_two_at_least(trace: Path) -> None:
    assert [(one.prompt, one.new) for one in chat_read(trace, scale=100)] == [(4, 2), (4, 2), (2, 2)]
    assert chat_read(trace, scale=100)[0] == ChatRequest(0.0, 4, 2)
