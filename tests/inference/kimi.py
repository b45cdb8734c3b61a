"""Folders in the manner of Kimi K2: a tiktoken file, its markers in a chat template, small weights."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path

from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write
from inference.tokenizer import Tokenizer

NANO = Path(__file__).parents[2] / "inference/models/nano"
# Names by their place after the ranks, as published; those of control tokens first.
CONTROL = {
    0: "[BOS]", 1: "[EOS]", 2: "<|im_end|>", 3: "<|im_user|>", 4: "<|im_assistant|>", 10: "<|im_system|>",
    17: "<|im_middle|>", 254: "[UNK]", 255: "[PAD]",
}  # fmt: skip
SPELLED = {
    11: "<|tool_calls_section_begin|>", 12: "<|tool_calls_section_end|>", 13: "<|tool_call_begin|>",
    14: "<|tool_call_argument_begin|>", 15: "<|tool_call_end|>",
}  # fmt: skip
TEMPLATE = """
{%- if tools -%}
  <|im_system|>tools<|im_middle|>{{ tools | tojson(separators=(',', ':')) }}<|im_end|>
{%- endif -%}
{%- for turn in messages -%}
  {%- if turn['role'] == 'user' -%}<|im_user|>{%- elif turn['role'] == 'assistant' -%}<|im_assistant|>
  {%- else -%}<|im_system|>{%- endif -%}
  {{ turn.get('name') or turn['role'] }}<|im_middle|>
  {%- if turn['role'] == 'tool' -%}{{ 'Result of ' + turn['tool_call_id'] + ':\n' }}{%- endif -%}
  {{ turn['content'] or '' }}
  {%- if turn.get('tool_calls') -%}
    <|tool_calls_section_begin|>
    {%- for call in turn['tool_calls'] -%}
      <|tool_call_begin|>{{ call['id'] }}<|tool_call_argument_begin|>{{ call['function']['arguments'] }}
      {%- raw %}<|tool_call_end|>{% endraw -%}
    {%- endfor -%}
    <|tool_calls_section_end|>
  {%- endif -%}
  <|im_end|>
{%- endfor -%}
{%- if add_generation_prompt -%}<|im_assistant|>assistant<|im_middle|>{%- endif -%}
"""


def ranked_tokens() -> list[bytes]:
    """The bytes of nano's tokens, in the order in which they were learned."""
    return [data for data in Tokenizer.from_dir(NANO).token_bytes if data]


def ranks_write(path: Path, tokens: Sequence[bytes]) -> None:
    """`tiktoken.model` of `tokens` in the order of their ranks."""
    lines = (b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens))
    path.write_bytes(b"".join(lines))


def tokenizer_write(folder: Path, tokens: Sequence[bytes], **changes: object) -> None:
    """The tokenizer files, with `changes` to `tokenizer_config.json`."""
    ranks_write(folder / "tiktoken.model", tokens)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    names = {place: (name, True) for place, name in CONTROL.items()}
    names |= {place: (name, False) for place, name in SPELLED.items()}
    settings = {
        "added_tokens_decoder": {
            str(len(tokens) + place): {"content": name, "special": special}
            for place, (name, special) in names.items()
        },
        "bos_token": "[BOS]",
        "eos_token": "[EOS]",
        "tokenizer_class": "TikTokenTokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | changes), encoding="utf-8")
    generation = {"eos_token_id": len(tokens) + 2}
    (folder / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")


def checkpoint_write(folder: Path) -> None:
    """A whole checkpoint with random weights, and with the program that the published ones carry."""
    tokens = ranked_tokens()
    config = {
        **TINY_V3, "model_type": "kimi_k2", "n_group": 1, "topk_group": 1, "routed_scaling_factor": 2.827,
        "vocab_size": len(tokens) + 256, "bos_token_id": len(tokens), "eos_token_id": len(tokens) + 1,
    }  # fmt: skip
    random_checkpoint_write(path=folder, config=config)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenization_kimi.py").write_text("raise SystemExit('never run')\n", encoding="utf-8")
    tokenizer_write(folder, tokens)
