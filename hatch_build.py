"""Hatchling's build hook: a wheel carries the CPU kernels where torch and a C++ compiler can make them.

The library calls torch's C++ interface and none of Python's: a wheel with it suits every Python on its
platform, one without it every platform. torch is too large for a build requirement: only a build in an
environment that holds it (`--no-build-isolation`) compiles.
"""

from __future__ import annotations

import importlib
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.config import BuilderConfig
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_WITHOUT = (
    "This wheel carries no CPU kernels: where it is installed the engine runs in plain torch, slower, until "
    "`python -m moe_ops.native.build` compiles them. Reason: {reason}"
)


class KernelsHook(BuildHookInterface[BuilderConfig]):
    """Puts the compiled library and nothing else of `_build` into a wheel, and names the platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile unless done already. An editable installation takes the checkout as it is."""
        if version == "editable":
            return
        try:
            library = _library(Path(self.root, "kernels"))
        except (ImportError, OSError, RuntimeError) as error:
            self.app.display_warning(_WITHOUT.format(reason=error))
            return
        build_data["force_include"][str(library)] = f"moe_ops/native/_build/{library.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def _library(source_root: Path) -> Path:
    sys.path.insert(0, str(source_root))
    library: Path = importlib.import_module("moe_ops.native.build").build()
    return library
