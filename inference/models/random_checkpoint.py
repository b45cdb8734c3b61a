"""Checkpoint folders with random weights, in the published layout: for tests and for timing without a
download.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from inference.models.fields import Fields
from inference.models.fp8 import Fp8Blocks
from inference.models.random_tensors import RandomTensors
from inference.models.registry import family_of
from inference.models.sizes import SIZES, TINY_V3
from inference.models.streaming import write_streaming

__all__ = ["TINY_V3", "random_checkpoint_write"]

_SPECIAL = (
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜▁pad▁｜>",
    "<｜fim▁begin｜>",
    "<｜fim▁hole｜>",
    "<｜fim▁end｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
)
_CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<｜User｜>' + message['content'] }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<｜Assistant｜>' + message['content'] + eos_token }}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}"
)


def random_checkpoint_write(
    *,
    path: Path,
    config: Mapping[str, object],
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    shards: int = 1,
    scale: float = 1.0,
) -> None:
    """Write `config.json`, weights in `shards` files, and a tokenizer of single bytes.

    Weights are normal with variance `scale`² / inputs, so that activations keep their size through any depth;
    norms and correction biases differ from their neutral values, so that leaving one out shows. With a
    `quantization_config` projections are FP8. One tensor is in memory at a time.
    """
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(dict(config), indent=2), encoding="utf-8")
    fields = Fields(config, "config")
    shapes = dict(family_of(fields).tensors(family_of(fields).read(config, "config"), True))
    make = RandomTensors(torch.Generator().manual_seed(seed), dtype, scale, Fp8Blocks.from_fields(fields))
    weight_map: dict[str, str] = {}
    for shard in range(shards):
        name = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors" if shards > 1 else "model.safetensors"
        part = {tensor: shapes[tensor] for tensor in list(shapes)[shard::shards]}
        written = write_streaming(path / name, make.headers(part), make.tensors(part))
        weight_map |= dict.fromkeys(written, name)
    if shards > 1:
        index = {"metadata": {}, "weight_map": weight_map}
        (path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    _write_tokenizer(path, fields.integer("vocab_size", None))


def _write_tokenizer(path: Path, size: int) -> None:
    """Eight control tokens, one token per byte, and pairs of bytes that no text is encoded to."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = (first + second for first in alphabet for second in alphabet)
    fillers = islice(pairs, max(0, size - len(_SPECIAL) - len(alphabet)))
    vocab = {token: id_ for id_, token in enumerate([*_SPECIAL, *alphabet, *fillers])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": _SPECIAL[0],
        "eos_token": _SPECIAL[1],
        "add_bos_token": True,
        "chat_template": _CHAT_TEMPLATE,
    }
    text = json.dumps(settings, ensure_ascii=False, indent=2)
    (path / "tokenizer_config.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Write one of the sizes that are timed: `python -m inference.models.random_checkpoint M folder`."""
    parser = argparse.ArgumentParser(description="Write a checkpoint with random weights.")
    parser.add_argument("size", choices=sorted(SIZES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    random_checkpoint_write(path=options.folder, config=SIZES[options.size], dtype=dtype)


if __name__ == "__main__":
    main()
