"""Peak resident memory of a process and all its children, from the kernel's books."""

from __future__ import annotations

from pathlib import Path


def peak_bytes(pid: int) -> int:
    """Sum of the peaks of the process tree below `pid`; mapped files count where they are resident."""
    return sum(_high_water_bytes(one) for one in _tree(pid))


def _tree(pid: int) -> list[int]:
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text(encoding="ascii").split()
        ]
    except OSError:  # it ended meanwhile
        return []
    return [pid, *(below for child in children for below in _tree(child))]


def _high_water_bytes(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
