"""From a checkpoint folder to a model that is ready to run."""

from __future__ import annotations

from pathlib import Path

import torch

from inference.layers.forms import Packing
from inference.layers.placement import Placement, on_cpu
from inference.models.checkpoint import Checkpoint
from inference.models.config_file import read_config
from inference.models.decoder import Decoder
from inference.models.digest import checkpoint_digest
from inference.models.fields import Fields
from inference.models.fp8 import Fp8Blocks
from inference.models.interface import CausalModel
from inference.models.packed import PackedStore
from inference.models.placed import GRAPH_ROWS, PlacedModel
from inference.models.registry import family_of
from inference.models.token_by_token import TokenByToken
from moe_ops.linear import LAYOUT_VERSION, Activations, WeightFormat


def load_model(
    path: Path,
    *,
    weights: WeightFormat = "float32",
    activations: Activations = "int8",
    native: bool | None = None,
    reference: bool = False,
    mtp: bool = False,
    cache_dir: Path | None = None,
    place: Placement | None = None,
    rows: int = GRAPH_ROWS,
) -> CausalModel:
    """Load the folder `path`, with its first prediction module when `mtp` is wanted and there is one.

    Packed weights are kept in `cache_dir` and mapped from there; without one they are packed into memory.
    `activations` is what integer weights meet: activations rounded to int8, or fp32 ones as they are.
    `native` asks for the C++ kernels (None: where they are compiled) or for plain torch. With `reference`
    every operation is its definition, in fp32 and one token at a time. `place` is an accelerator, which may
    record steps of up to `rows` rows. Raises `ConfigError` or `CheckpointError`, naming all that does not
    fit, `DeviceError`, and `ValueError` for kernels that are not compiled.
    """
    place = place or on_cpu(native=native, reference=reference)
    packing = place.packing(weights, activations)
    data, source = read_config(path)
    fields = Fields(data, source)
    family = family_of(fields)
    config = family.read(data, source)
    with torch.inference_mode(), Checkpoint(path, fp8=Fp8Blocks.from_fields(fields)) as checkpoint:
        checkpoint.check(family.tensors(config, mtp), family.ignored(config))
        model = family.build(config, checkpoint, packing, _store(path, cache_dir, packing), mtp)
    if not place.wide:
        records = isinstance(model, Decoder) and model.recordable
        return PlacedModel(model, place.device, capture=place.capture if records else None, rows=rows)
    return TokenByToken(model) if reference else model


def _store(path: Path, cache_dir: Path | None, packing: Packing) -> PackedStore:
    """The folder of this checkpoint's packed weights; every change of the layout gets a new one."""
    if cache_dir is None:
        return PackedStore(None)
    settings = f"{packing.key}, layout {LAYOUT_VERSION}"
    return PackedStore(cache_dir / checkpoint_digest(path, cache_dir=cache_dir, settings=settings))
