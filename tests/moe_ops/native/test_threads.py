"""Threads of a region part, keep their processors open, and start again after they were let go."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from moe_ops import native
from moe_ops.linear import FORMATS

pytestmark = pytest.mark.usefixtures("library")
TASKS = Path("/proc/self/task")


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def processors() -> dict[int, set[int]]:
    """Where each thread of this process may run."""
    return {int(task.name): os.sched_getaffinity(int(task.name)) for task in TASKS.iterdir()}


@pytest.mark.skipif(not TASKS.exists(), reason="needs Linux")
@pytest.mark.usefixtures("two_threads")
def test_threads_met_on_one_processor_may_run_everywhere_again() -> None:
    torch.ops.tokenworks.peak(FORMATS.index("float32"), 1)
    before = processors()
    first = min(before[os.getpid()])
    for task in before:
        os.sched_setaffinity(task, {first})
    for task, allowed in before.items():
        os.sched_setaffinity(task, allowed)
    for _ in range(3):
        torch.ops.tokenworks.peak(FORMATS.index("float32"), 1)
    assert {task: allowed for task, allowed in processors().items() if task in before} == before


@pytest.mark.usefixtures("two_threads")
def test_regions_run_after_their_threads_were_let_go() -> None:
    expected = torch.ops.tokenworks.peak(FORMATS.index("int8"), 2)
    native.release_threads()
    assert torch.ops.tokenworks.peak(FORMATS.index("int8"), 2) == expected
