"""Which packages are ours, read from the folders that hold them."""

from __future__ import annotations

from pathlib import Path

from stack.layout import ROOT

_SOURCE_ROOTS = ("platform", "kernels")
_TOP_LEVEL = ("tenants", "inference", "bench")


def packages_find(root: Path) -> tuple[str, ...]:
    """Names of all importable packages of the project under ``root``, sorted."""
    inside = [folder for name in _SOURCE_ROOTS for folder in (root / name).iterdir()]
    candidates = [*inside, *(root / name for name in _TOP_LEVEL)]
    return tuple(sorted(folder.name for folder in candidates if (folder / "__init__.py").exists()))


PACKAGES = packages_find(ROOT)
