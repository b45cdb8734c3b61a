"""From a checkpoint folder to a model that is ready to run."""

from __future__ import annotations

from pathlib import Path

import torch

from inference.models.checkpoint import Checkpoint
from inference.models.config_file import read_config
from inference.models.fields import Fields
from inference.models.fp8 import Fp8Blocks
from inference.models.interface import CausalModel
from inference.models.registry import family_of


def load_model(path: Path, *, dtype: torch.dtype = torch.float32, mtp: bool = False) -> CausalModel:
    """Load the folder `path`, with its first prediction module when `mtp` is wanted and there is one.

    Raises `ConfigError` or `CheckpointError`, naming all that does not fit.
    """
    data, source = read_config(path)
    fields = Fields(data, source)
    family = family_of(fields)
    config = family.read(data, source)
    with torch.inference_mode(), Checkpoint(path, fp8=Fp8Blocks.from_fields(fields)) as checkpoint:
        checkpoint.check(family.tensors(config, mtp), family.ignored(config))
        return family.build(config, checkpoint, dtype, mtp)
