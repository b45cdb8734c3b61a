"""The wish for short turns: granted, and neither another policy nor niceness comes with it."""

from __future__ import annotations

import os
import platform
import sys
import threading

import pytest

from inference.waking import wake_promptly


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="asks Linux"
)
def test_a_thread_is_granted_short_turns_and_keeps_the_rest() -> None:
    found: list[object] = []

    def ask() -> None:
        before = os.getpriority(os.PRIO_PROCESS, 0)
        found.append(wake_promptly())
        found.append(os.getpriority(os.PRIO_PROCESS, 0) == before)
        found.append(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert found == [True, True, True]


def test_a_thread_of_another_policy_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getscheduler", lambda _: os.SCHED_BATCH)
    assert not wake_promptly()
