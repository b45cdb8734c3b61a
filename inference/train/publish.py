"""The last two stages: measure the trained network, and write the folder that is published."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from inference.train.card import CardFacts, StageFacts, card_text
from inference.train.curves import curves_draw
from inference.train.evaluate import LayerLoad, Report, evaluate
from inference.train.export import model_export, model_import
from inference.train.held_out import bits_per_byte
from inference.train.network import Network
from inference.train.settings import nano_architecture
from inference.train.stages import RunFolder, StageError, new_network
from inference.train.trainer import log_read

_STAGES = ("pretrain", "chat")
_EVALUATION = "evaluation.json"


def model_evaluate(run: RunFolder, *, per_kind: int) -> None:
    """Measure what would be published (its weights rounded to bf16) and write `evaluation.json`."""
    texts, tokenizer = run.texts("heldout"), run.tokenizer()
    torch.manual_seed(1)
    untrained = bits_per_byte(new_network(tokenizer.get_vocab_size()).eval(), texts, tokenizer)
    print(f"untrained: {untrained:.3f} bits per byte", flush=True)
    pretrained = bits_per_byte(run.trained("pretrain"), texts, tokenizer)
    print(f"pre-trained: {pretrained:.3f} bits per byte", flush=True)
    report = evaluate(_rounded(run), texts, tokenizer, per_kind=per_kind)
    found = {"untrained_bpb": untrained, "pretrained_bpb": pretrained, "report": asdict(report)}
    (run.path / _EVALUATION).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found["report"]), flush=True)


def model_publish(run: RunFolder, *, folder: Path, curves: bool) -> None:
    """Write weights, tokenizer, configuration, card and curves to `folder`."""
    network, tokenizer = run.trained("chat"), run.tokenizer()
    size = model_export(
        network, tokenizer, nano_architecture(vocab_size=tokenizer.get_vocab_size()), folder=folder
    )
    logs = [(stage, log_read(run.path / f"{stage}.log.jsonl")) for stage in _STAGES]
    if curves:
        curves_draw(stages=logs, folder=folder)
    facts = _facts(run, network, weights_bytes=size, logs=logs)
    (folder / "README.md").write_text(card_text(facts), encoding="utf-8")
    print(f"exported {size / 1e6:.1f} MB of weights and the card to {folder}")


def _rounded(run: RunFolder) -> Network:
    """The chat network as readers of the published file get it."""
    folder = run.path / "export"
    network, tokenizer = run.trained("chat"), run.tokenizer()
    model_export(network, tokenizer, nano_architecture(vocab_size=tokenizer.get_vocab_size()), folder=folder)
    return model_import(folder)


def _facts(
    run: RunFolder, network: Network, *, weights_bytes: int, logs: list[tuple[str, list[dict[str, Any]]]]
) -> CardFacts:
    path = run.path / _EVALUATION
    if not path.exists():
        raise StageError("nothing is measured yet: run `python -m inference.train evaluate` before export")
    found = json.loads(path.read_text(encoding="utf-8"))
    report = found["report"] | {"load": [LayerLoad(**load) for load in found["report"]["load"]]}
    manifest = json.loads((run.corpus / "manifest.json").read_text(encoding="utf-8"))
    tokenizer = run.tokenizer()
    encoded = tokenizer.encode_batch([source.text for source in run.texts("train")])
    return CardFacts(
        report=Report(**report),
        untrained_bits_per_byte=found["untrained_bpb"],
        pretrained_bits_per_byte=found["pretrained_bpb"],
        stages=[
            StageFacts(stage, lines[-1]["step"], lines[-1]["tokens"], lines[-1]["elapsed_s"] / 60)
            for stage, lines in logs
            if lines
        ],
        parameters_millions=sum(parameter.numel() for parameter in network.parameters()) / 1e6,
        active_millions=active_parameters(network) / 1e6,
        weights_megabytes=weights_bytes / 1e6,
        train_megabytes=manifest["bytes"]["train"] / 1e6,
        heldout_megabytes=manifest["bytes"]["heldout"] / 1e6,
        train_tokens_millions=sum(len(encoding.ids) for encoding in encoded) / 1e6,
        pairs=len(run.pairs()),
        python=manifest["python"],
        heldout_names=[item["name"] for item in manifest["documents"] if item["split"] == "heldout"],
    )


def active_parameters(network: Network) -> float:
    """Parameters that take part in one token's logits: chosen experts only, no embedding, no draft module."""
    config = network.config
    total = 0.0
    for name, parameter in network.named_parameters():
        if name.startswith(("mtp.", "embed_tokens.")):
            continue
        routed = name.endswith(("gate_up_E2ID", "down_EDI"))
        share = config.num_experts_per_tok / config.n_routed_experts if routed else 1.0
        total += parameter.numel() * share
    return total
