"""From a checkpoint folder to a model that is ready to run."""

from __future__ import annotations

from pathlib import Path

import torch

from inference.layers.forms import Packing, forms_for
from inference.models.checkpoint import Checkpoint
from inference.models.config_file import read_config
from inference.models.fields import Fields
from inference.models.fp8 import Fp8Blocks
from inference.models.interface import CausalModel
from inference.models.registry import family_of
from inference.models.token_by_token import TokenByToken
from moe_ops.linear import WeightFormat


def load_model(
    path: Path,
    *,
    weights: WeightFormat = "float32",
    native: bool | None = None,
    reference: bool = False,
    mtp: bool = False,
) -> CausalModel:
    """Load the folder `path`, with its first prediction module when `mtp` is wanted and there is one.

    `native` asks for the C++ kernels (None: where they are compiled) or for plain torch. With `reference`
    every operation is its definition, in fp32 and one token at a time. Raises `ConfigError` or
    `CheckpointError`, naming all that does not fit, and `ValueError` for kernels that are not compiled.
    """
    packing = Packing(weights, forms_for(native=native, reference=reference))
    data, source = read_config(path)
    fields = Fields(data, source)
    family = family_of(fields)
    config = family.read(data, source)
    with torch.inference_mode(), Checkpoint(path, fp8=Fp8Blocks.from_fields(fields)) as checkpoint:
        checkpoint.check(family.tensors(config, mtp), family.ignored(config))
        model = family.build(config, checkpoint, packing, mtp)
    return TokenByToken(model) if reference else model
