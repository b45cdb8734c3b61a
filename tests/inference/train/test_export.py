"""The exported folder is what transformers computes with: same logits, also past the original context."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoTokenizer, DeepseekV3ForCausalLM

from inference.train.export import BYTES_MAX, checkpoint_tensors, model_export, model_import
from inference.train.network import Network
from inference.train.vocabulary import BOS, FIM_BEGIN

NANO = Path(__file__).resolve().parents[3] / "inference" / "models" / "nano"


def our_logits(network: Network, id_BT: torch.Tensor) -> torch.Tensor:
    length = id_BT.shape[1]
    look = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
    with torch.no_grad():
        logits: torch.Tensor = network.lm_head(
            network(id_BT, network.context(torch.arange(length)[None], look))
        )
    return logits


def their_logits(folder: Path, id_BT: torch.Tensor) -> torch.Tensor:
    model = DeepseekV3ForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(id_BT).logits
    return logits


def test_a_random_model_has_the_logits_transformers_computes(
    tiny_network: Network, tiny_architecture: dict[str, object], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model_export(tiny_network, tokenizer, tiny_architecture, folder=tmp_path, dtype=torch.float32)
    id_BT = torch.randint(0, tokenizer.get_vocab_size(), (2, 150))  # past the original 64 positions
    ours, theirs = our_logits(tiny_network, id_BT), their_logits(tmp_path, id_BT)
    assert (ours - theirs).abs().max() < 1e-4
    assert theirs.std() > 0.01


def test_an_export_is_read_back_unchanged(
    tiny_network: Network, tiny_architecture: dict[str, object], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model_export(tiny_network, tokenizer, tiny_architecture, folder=tmp_path, dtype=torch.float32)
    again = model_import(tmp_path).state_dict()
    for name, value in tiny_network.state_dict().items():
        assert torch.equal(again[name], value), name


def test_the_draft_module_is_the_layer_after_the_last_without_copies(tiny_network: Network) -> None:
    names = set(checkpoint_tensors(tiny_network, dtype=torch.float32))
    draft = {name.removeprefix("model.layers.3.") for name in names if name.startswith("model.layers.3.")}
    assert {"enorm.weight", "hnorm.weight", "eh_proj.weight", "shared_head.norm.weight"} <= draft
    assert {"self_attn.kv_a_proj_with_mqa.weight", "mlp.experts.7.down_proj.weight"} <= draft
    assert not any("embed_tokens" in name or "head.weight" in name for name in draft)


def test_the_tokenizer_folder_serves_chat_and_infilling(
    tiny_network: Network, tiny_architecture: dict[str, object], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model_export(tiny_network, tokenizer, tiny_architecture, folder=tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "f"}]
    text = loaded.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == BOS + "S<｜User｜>f<｜Assistant｜>"
    assert loaded("def")["input_ids"] == tokenizer.encode("def").ids
    assert loaded.convert_tokens_to_ids(FIM_BEGIN) == tokenizer.token_to_id(FIM_BEGIN)
    source = "def f(x):\n\treturn 'ü'  \n\n\n    €"
    assert loaded.decode(loaded(source)["input_ids"], skip_special_tokens=True) == source


def test_nano_has_the_logits_transformers_computes() -> None:
    network = model_import(NANO)
    ids = (
        Tokenizer.from_file(str(NANO / "tokenizer.json"))
        .encode(Path(__file__).read_text(encoding="utf-8"))
        .ids
    )
    id_BT = torch.tensor([ids[:1200]])  # past the original 1024 positions
    assert id_BT.shape[1] == 1200
    assert (our_logits(network, id_BT) - their_logits(NANO, id_BT)).abs().max() < 1e-3


def test_nano_keeps_to_its_size_and_types() -> None:
    assert (NANO / "model.safetensors").stat().st_size <= BYTES_MAX
    with safe_open(NANO / "model.safetensors", framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  # not a mapping
            wanted = torch.float32 if name.endswith("e_score_correction_bias") else torch.bfloat16
            assert file.get_tensor(name).dtype == wanted, name
