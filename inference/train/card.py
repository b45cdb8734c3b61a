"""nano's model card, written from measured figures alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import Template

from inference.train.evaluate import Report
from inference.train.infill_tasks import KINDS


@dataclass(frozen=True, slots=True)
class StageFacts:
    """What one stage took."""

    name: str
    steps: int
    tokens: int
    minutes: float


@dataclass(frozen=True, slots=True)
class CardFacts:
    """Everything the card states that is not fixed text."""

    report: Report
    untrained_bits_per_byte: float
    pretrained_bits_per_byte: float
    stages: Sequence[StageFacts]
    parameters_millions: float
    active_millions: float
    weights_megabytes: float
    train_megabytes: float
    heldout_megabytes: float
    train_tokens_millions: float
    pairs: int
    python: str
    heldout_names: Sequence[str]


def card_text(facts: CardFacts) -> str:
    """The card as Markdown."""
    report = facts.report
    return Template(_CARD).substitute(
        parameters=f"{facts.parameters_millions:.2f}",
        active=f"{facts.active_millions:.2f}",
        weights=f"{facts.weights_megabytes:.1f}",
        train_mb=f"{facts.train_megabytes:.1f}",
        heldout_mb=f"{facts.heldout_megabytes:.2f}",
        train_tokens=f"{facts.train_tokens_millions:.2f}",
        pairs=f"{facts.pairs:,}",
        python=facts.python,
        before=f"{facts.untrained_bits_per_byte:.3f}",
        between=f"{facts.pretrained_bits_per_byte:.3f}",
        after=f"{report.bits_per_byte:.3f}",
        infill="\n".join(_infill_row(report, kind) for kind in KINDS),
        acceptance=f"{report.draft_acceptance:.1%}",
        drafted=f"{report.draft_tokens:,}",
        load="\n".join(
            f"| {load.layer} | {load.least:.2f} | 1.00 | {load.most:.2f} |" for load in report.load
        ),
        stages="\n".join(
            f"| {stage.name} | {stage.steps:,} | {stage.tokens / 1e6:.2f} M | {stage.minutes:.0f} min |"
            for stage in facts.stages
        ),
        heldout="\n".join(f"- `{name}`" for name in facts.heldout_names),
    )


def _infill_row(report: Report, kind: str) -> str:
    correct, count = report.infill_correct[kind], report.infill_count[kind]
    return f"| {kind} | {correct} of {count} | {correct / max(count, 1):.1%} |"


_CARD = """\
---
license: psf-2.0
language: [en]
tags: [code, python, deepseek_v3, fill-in-the-middle]
---

# tokenworks-nano

A very small language model with DeepSeek-V3's architecture, made to exercise a serving system with real
weights: latent attention with compressed queries and keys, one shared and sixteen routed experts with
group-limited sigmoid routing and a balancing bias, YaRN, and one multi-token-prediction module. It writes
Python in the style of the standard library, introduces itself, and has been shown questions and answers about
the library's functions. It is no assistant: most of its answers about a particular function are wrong, and
infilling is at the level the figures below say. It knows nothing but Python's standard library.

| | |
|---|---|
| parameters | $parameters M with the draft module; $active M active per token, embedding left out |
| weights | bf16, $weights MB; router biases fp32 |
| context | trained on rows of 256, then 1,024 tokens; YaRN declares 4,096, where quality is lower |
| tokenizer | byte-level BPE, 4,096 entries, trained on the training split |

## Data

The standard library of CPython $python: its `.py` files without tests, `encodings` and generated files, the
language reference's topics that ship for `help()`, and the docstrings of modules written in C. $train_mb MB
to train on ($train_tokens M tokens) and $heldout_mb MB held out, chosen by the SHA-256 of each document's
name and listed below; nothing of it is trained on, by tokenizer, pre-training or chat stage. Exact duplicates
are removed; near-duplicates are not, and a held-out file shares style and some phrases with its package.

The chat stage uses $pairs question/answer pairs made by template from docstrings and signatures of the
training split, and a few dozen sentences in which the model introduces itself.

## Training

| stage | steps | tokens seen | time |
|---|---|---|---|
$stages

Two processes of one thread on two x86-64 cores with AVX2, fp32, on a machine shared with other work (so the
time says little about the cores). Muon for the matrices inside blocks, AdamW for embeddings, head, router and
norms. Every second segment is laid out for fill-in-the-middle (prefix, suffix, middle; cut by characters).
Rows are packed with positions and attention restarting at each document. Balancing has no auxiliary loss:
after each step the bias moves by ±0.003, scaled with the learning rate, towards the mean load.

![Loss](loss.png)

![Expert load](expert-load.png)

## Evaluation, on held-out files alone

**Bits per byte**: $before untrained, $between after pre-training, $after after the chat stage (this file).
Texts are cut into rows of 1,024 tokens, each starting without memory; all held-out text is counted.

**Infilling**, greedy, exact match but for trailing white space, in function bodies of held-out files, with up
to 1,500 characters before and 700 after the hole:

| hole | exact | share |
|---|---|---|
$infill

Where this shows zeros: the layout with its special tokens is learned, using both sides of the hole takes
far more tokens than this run had.

"line" is a whole line after its indentation, "rest of line" starts at a random column, "lines" is two to four
lines.

**Draft acceptance** of the multi-token-prediction module: $acceptance of $drafted tokens drafted during the
greedy infills above equal what the model itself then chose. Greedy text of so small a model
repeats itself, which makes this figure flattering.

**Expert load** on held-out text, as share of the tokens × number of experts (1 is even):

| | least | mean | most |
|---|---|---|---|
$load

## Use

Standard Hugging Face files: `DeepseekV3ForCausalLM.from_pretrained` reads the folder (transformers 5.23) and
gives the same logits as the training network. The multi-token-prediction module is layer 5 of the file, whose
embedding and head are the main model's; transformers reports those tensors as unexpected, because it knows
the module only at layer 61, and ignores them.

Fill-in-the-middle: `<｜fim▁begin｜>` prefix `<｜fim▁hole｜>` suffix `<｜fim▁end｜>`, after the BOS token the
tokenizer adds. Chat: the template in `tokenizer_config.json`.

## Licence

The training data is under the PSF licence; the weights are offered under the same terms. They may reproduce
passages of the standard library verbatim.

## Held-out documents

$heldout
"""
