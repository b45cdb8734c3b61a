"""The C++ kernels: one library of operations `torch.ops.tokenworks.*`, compiled by `moe_ops.native.build`.

`csrc/` holds one file per operation and, where it pays, one more per instruction set; the right one is chosen
at run time. Without the library every operation has a form in plain torch.
"""

from __future__ import annotations

import logging
from functools import cache

import torch

from moe_ops.native.library import built_library

_LOG = logging.getLogger(__name__)
ISAS = ("portable", "avx2", "avx512", "vnni", "bf16")


@cache
def available() -> bool:
    """Whether the native operations can be called: loads the library once, or says once why not."""
    path = built_library()
    if path is None:
        _LOG.warning("CPU kernels are not compiled (python -m moe_ops.native.build); running in plain torch")
        return False
    try:
        torch.ops.load_library(path)
    except OSError as error:
        _LOG.warning("CPU kernels do not load (%s); running in plain torch", error)
        return False
    return True


def features() -> dict[str, object]:
    """What the processor offers and what the kernels use: `{"native": bool, "isa": str, "best": str}`."""
    if not available():
        return {"native": False, "isa": "torch", "best": "torch"}
    ops = torch.ops.tokenworks
    return {"native": True, "isa": ISAS[ops.isa()], "best": ISAS[ops.isa_best()]}


def use_isa(name: str) -> str:
    """Run kernels of instruction set `name` from now on and return the one before; for tests and benches.

    Raises `ValueError` for one that this processor lacks, or where nothing is compiled.
    """
    if not available():
        raise ValueError("CPU kernels are not compiled")
    ops = torch.ops.tokenworks
    if name not in ISAS or ISAS.index(name) > ops.isa_best():
        raise ValueError(f"instruction set {name!r}: this processor has {ISAS[: ops.isa_best() + 1]}")
    before = ISAS[ops.isa()]
    ops.isa_use(ISAS.index(name))
    return before


def release_threads() -> None:
    """End the threads that compute for the calling one; they start again when it needs them.

    For a thread that hands the work over to another: where both have helpers, libgomp counts more threads
    than processors, and all of them sleep instead of waiting in a loop: some 15 µs at each meeting.
    """
    if available():
        torch.ops.tokenworks.release_threads()
