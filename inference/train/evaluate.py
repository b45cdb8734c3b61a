"""The figures of the model card: bits per byte, infilling, draft acceptance and expert load, all held-out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer

from inference.train.corpus import SourceText
from inference.train.fim import fim_prompt_ids
from inference.train.generate import greedy
from inference.train.held_out import bits_per_byte, label_losses
from inference.train.infill_tasks import KINDS, InfillTask, infill_tasks
from inference.train.losses import shifted_left
from inference.train.network import Network
from inference.train.packing import Document, pack_rows
from inference.train.vocabulary import SpecialIds

_TOKENS_MAX = {"line": 64, "rest of line": 64, "lines": 160}


@dataclass(frozen=True, slots=True)
class LayerLoad:
    """Share of routed tokens × experts: 1 is a perfectly even load."""

    layer: str
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything measured; exact matches and counts by kind of infill."""

    bits_per_byte: float
    infill_correct: dict[str, int]
    infill_count: dict[str, int]
    draft_acceptance: float
    draft_tokens: int
    load: list[LayerLoad]


def evaluate(
    network: Network, texts: Sequence[SourceText], tokenizer: Tokenizer, *, per_kind: int = 150
) -> Report:
    """Measure `network` on the held-out `texts`."""
    network.eval()
    tasks = infill_tasks(texts, per_kind=per_kind)
    answers = [_infilled(network, task, tokenizer) for task in tasks]
    correct = dict.fromkeys(KINDS, 0)
    count = dict.fromkeys(KINDS, 0)
    for task, (_, _, text) in zip(tasks, answers, strict=True):
        count[task.kind] += 1
        correct[task.kind] += text.rstrip() == task.infill.middle.rstrip()
    accepted, drafted = draft_acceptance(network, [(prompt, ids) for prompt, ids, _ in answers])
    return Report(
        bits_per_byte=bits_per_byte(network, texts, tokenizer),
        infill_correct={str(kind): number for kind, number in correct.items()},
        infill_count={str(kind): number for kind, number in count.items()},
        draft_acceptance=accepted / max(drafted, 1),
        draft_tokens=drafted,
        load=expert_load(network, texts, tokenizer),
    )


@torch.no_grad()
def draft_acceptance(network: Network, runs: Sequence[tuple[list[int], list[int]]]) -> tuple[int, int]:
    """`(accepted, drafted)`: how often the module's token after next is what greedy decoding then chose.

    `runs` are prompts with their greedy continuations; drafts are made from the first generated token on.
    """
    accepted = drafted = 0
    for prompt, generated in runs:
        if len(generated) < 2:
            continue
        ids_BT = torch.tensor([[*prompt, *generated]])
        length = ids_BT.shape[1]
        look = torch.ones(1, 1, length, length, dtype=torch.bool).tril()
        context = network.context(torch.arange(length)[None], look)
        state = network(ids_BT, context)
        draft_state = network.mtp(network.embed_tokens(shifted_left(ids_BT, 0)), state, context)
        first = len(prompt) - 1
        guesses = network.lm_head(draft_state[0, first : length - 2]).argmax(dim=-1)
        accepted += int((guesses == ids_BT[0, first + 2 :]).sum())
        drafted += len(guesses)
    return accepted, drafted


@torch.no_grad()
def expert_load(network: Network, texts: Sequence[SourceText], tokenizer: Tokenizer) -> list[LayerLoad]:
    """The load of every routing layer on held-out text (the draft module routes nothing here)."""
    documents = [Document(tokenizer.encode(source.text).ids, divisible=True) for source in texts]
    rows = pack_rows(documents, row_tokens=512, pad_id=SpecialIds.of(tokenizer).pad)
    routers = network.routers()[:-1]
    for router in routers:
        router.load_E.zero_()
        router.train()  # counts the load; nothing else depends on the mode
    for start in range(0, len(rows), 8):
        label_losses(network, rows.batch(start, 8))
    network.eval()
    first = network.config.first_k_dense_replace
    loads = []
    for number, router in enumerate(routers):
        share_E = router.load_E / router.load_E.sum() * len(router.load_E)
        loads.append(LayerLoad(f"layer {first + number}", float(share_E.min()), float(share_E.max())))
        router.load_E.zero_()
    return loads


def _infilled(network: Network, task: InfillTask, tokenizer: Tokenizer) -> tuple[list[int], list[int], str]:
    special = SpecialIds.of(tokenizer)
    prompt = fim_prompt_ids(task.infill, tokenizer, special)
    generated = greedy(
        network, prompt, new_tokens_max=_TOKENS_MAX[task.kind], stop_ids=frozenset((special.eos,))
    )
    return prompt, generated, tokenizer.decode(generated)
