"""Which files of a checkpoint folder hold its tensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from inference.models.fields import shown
from inference.models.headers import CheckpointError, TensorHeader, unique_keys

_INDEX = "model.safetensors.index.json"
_SHOWN = 8  # names listed of each kind of fault


def checkpoint_files(path: Path) -> tuple[list[str], dict[str, str] | None]:
    """The names of the folder's files, and the index's tensor name to file name where there is an index.

    Without one, all safetensors files of the folder count. Raises `CheckpointError`.
    """
    index = path / _INDEX
    if not index.exists():
        names = sorted(file.name for file in path.glob("*.safetensors"))
        if not names:
            raise CheckpointError(f"{path}: no *.safetensors file")
        return names, None
    weight_map = _weight_map(index)
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).name != name or "\0" in name:
            raise CheckpointError(f"{index}: {shown(name)} is not the name of a file in this folder")
        if not (path / name).is_file():
            raise CheckpointError(f"{index}: names {name}, which is not there")
    return names, weight_map


def check_index(
    path: Path, weight_map: Mapping[str, str], headers: Mapping[str, Mapping[str, TensorHeader]]
) -> None:
    """Compare the index with the files' `headers` (by file name). Raises one `CheckpointError` for all."""
    placed = {(name, file) for file, tensors in headers.items() for name in tensors}
    claimed = set(weight_map.items())
    faults = {
        "named by the index and not in the file": sorted(claimed - placed),
        "in a file and not named by the index for it": sorted(placed - claimed),
    }
    parts = [
        f"{len(pairs)} {kind}: {listed([f'{name} ({file})' for name, file in pairs])}"
        for kind, pairs in faults.items()
        if pairs
    ]
    if parts:
        raise CheckpointError(f"{path / _INDEX}: " + "; ".join(parts))


def listed(names: list[str]) -> str:
    """The first few of `names`, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _weight_map(index: Path) -> dict[str, str]:
    expected = f"{index}: expected an object `weight_map` of tensor name to file name"
    try:
        data = json.loads(index.read_text(encoding="utf-8"), object_pairs_hook=unique_keys)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{expected}: {error}") from error
    weight_map = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(expected)
    for file in weight_map.values():
        if not isinstance(file, str):
            raise CheckpointError(f"{index}: {shown(file)} is not the name of a file in this folder")
    return weight_map
