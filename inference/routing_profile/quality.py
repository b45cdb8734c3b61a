"""What a profile costs: held-out windows answered under it, beside dynamic routing, token for token.

The text is given (teacher forcing): the prompt is read as the checkpoint routes, then the answer's tokens are
read twice from the same cache, dynamically and under the profile. The profile is applied even where a request
would fall back; what falling back spares is told beside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as fn
from numpy.typing import NDArray

from inference.models.decoder import Decoder
from inference.routing.observer import GateMass
from inference.routing.plan import plan_build
from inference.routing.profile import ProfileError, RoutingProfile, routers_digest
from inference.routing.request import RequestRouting
from inference.routing_profile.paired import Interval, mean_interval
from inference.routing_profile.scores import Covered
from inference.routing_profile.windows import Reader, Window

POSITIONS = 8
"""Parts of an answer over which its loss is shown."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One window's answer, by token: loss (nats) of the true token under both routings, the divergence
    KL(dynamic ‖ fixed), whether the likeliest tokens agree, and whether each is the true one. `served_T` is
    the loss with falling back. `inside_L` of `total_L` is the covered gate mass by layer.
    """

    dynamic_T: torch.Tensor
    fixed_T: torch.Tensor
    served_T: torch.Tensor
    kl_T: torch.Tensor
    agrees_T: torch.Tensor
    dynamic_right_T: torch.Tensor
    fixed_right_T: torch.Tensor
    inside_L: torch.Tensor
    total_L: torch.Tensor
    fell_back: bool


@dataclass(frozen=True, slots=True)
class Quality:
    """Over all windows. Losses in nats per token; accuracies are of the next token, in percent and points."""

    windows: int
    tokens: int
    dynamic_nll: float
    delta_nll: Interval
    served_delta_nll: Interval
    kl: Interval
    agreement: float
    dynamic_accuracy: float
    fixed_accuracy: float
    delta_accuracy: Interval
    fell_back: float
    covered: float
    covered_L: tuple[float, ...]
    kept_share: float
    delta_by_position: tuple[float, ...]


def quality_measure(
    model: Decoder, profile: RoutingProfile, windows: Sequence[Window], told: Callable[[int, int], None]
) -> Quality:
    """Read all windows. Raises `ProfileError` for a profile of another checkpoint."""
    if profile.checkpoint != routers_digest(weight for weight, _ in model.routers):
        raise ProfileError(f"{profile.id} was made for another checkpoint")
    reader = Reader(model, length=max(len(window.tokens) for window in windows))
    answers, tokens = [], 0
    for number, window in enumerate(windows, 1):
        answers.append(_answer(model, reader, profile, window))
        tokens += len(window.tokens)
        told(number, tokens)
    return _summed(answers, profile)


def _answer(model: Decoder, reader: Reader, profile: RoutingProfile, window: Window) -> Answer:
    routers = model.routers
    prompt = reader.batch(window, 0, window.prompt)
    mass = GateMass(
        torch.zeros(window.prompt, dtype=torch.int64),
        rows=1,
        layers=len(routers),
        experts=len(routers[0][0]),
        table_LTK=None if profile.table_LVK is None else profile.table_LVK[:, prompt.token_T].long(),
    )
    reader.read(replace(prompt, observer=mass, last_S=prompt.last_S[-1:]))
    routing = RequestRouting(profile, routers[0][1])
    forced = RequestRouting(replace(profile, coverage_min=0.0), routers[0][1])
    for one in (routing, forced):
        one.add(mass.mass_RLE[0], float(mass.in_table_R[0]))
        one.freeze()
    end = len(window.tokens)
    batch = reader.batch(window, window.prompt, end)
    plan = plan_build([forced] * len(batch.token_T), batch.token_T)
    if plan is None:
        raise ProfileError(f"{profile.id} restricts nothing")
    covered = Covered(plan)
    dynamic_TV = reader.read(replace(batch, observer=covered))[:-1].log_softmax(-1)
    fixed_TV = reader.read(replace(batch, routing=plan))[:-1].log_softmax(-1)
    true_T = torch.tensor(window.tokens[window.prompt + 1 :])
    dynamic_T, fixed_T = (-one.gather(1, true_T[:, None]).squeeze(1) for one in (dynamic_TV, fixed_TV))
    dynamic_best_T, fixed_best_T = dynamic_TV.argmax(-1), fixed_TV.argmax(-1)
    return Answer(
        dynamic_T=dynamic_T,
        fixed_T=fixed_T,
        served_T=fixed_T if routing.fixed else dynamic_T,
        kl_T=fn.kl_div(fixed_TV, dynamic_TV, reduction="none", log_target=True).sum(-1),
        agrees_T=dynamic_best_T == fixed_best_T,
        dynamic_right_T=dynamic_best_T == true_T,
        fixed_right_T=fixed_best_T == true_T,
        inside_L=covered.inside_L,
        total_L=covered.total_L,
        fell_back=not routing.fixed,
    )


def _summed(answers: Sequence[Answer], profile: RoutingProfile) -> Quality:
    count_W = np.array([len(answer.fixed_T) for answer in answers], dtype=np.int64)
    tokens = int(count_W.sum())

    def by_window(value: Callable[[Answer], torch.Tensor]) -> NDArray[np.float64]:
        return np.array([float(value(answer).double().sum()) for answer in answers])

    inside_L = torch.stack([answer.inside_L for answer in answers]).sum(0)
    total_L = torch.stack([answer.total_L for answer in answers]).sum(0)
    right = [by_window(lambda one: one.dynamic_right_T), by_window(lambda one: one.fixed_right_T)]
    return Quality(
        windows=len(answers),
        tokens=tokens,
        dynamic_nll=float(by_window(lambda one: one.dynamic_T).sum() / tokens),
        delta_nll=mean_interval(by_window(lambda one: one.fixed_T - one.dynamic_T), count_W),
        served_delta_nll=mean_interval(by_window(lambda one: one.served_T - one.dynamic_T), count_W),
        kl=mean_interval(by_window(lambda one: one.kl_T), count_W),
        agreement=100 * float(by_window(lambda one: one.agrees_T).sum() / tokens),
        dynamic_accuracy=100 * float(right[0].sum() / tokens),
        fixed_accuracy=100 * float(right[1].sum() / tokens),
        delta_accuracy=mean_interval(100 * (right[1] - right[0]), count_W),
        fell_back=sum(answer.fell_back for answer in answers) / len(answers),
        covered=float(inside_L.sum() / total_L.sum()),
        covered_L=tuple((inside_L / total_L).tolist()),
        kept_share=profile.size / profile.experts,
        delta_by_position=_by_position(answers),
    )


def _by_position(answers: Sequence[Answer]) -> tuple[float, ...]:
    """Mean difference in loss in each part of an answer, first to last; 0 where nothing falls."""
    sums, counts = np.zeros(POSITIONS), np.zeros(POSITIONS)
    for answer in answers:
        delta_T = (answer.fixed_T - answer.dynamic_T).double().numpy()
        part_T = np.arange(len(delta_T)) * POSITIONS // len(delta_T)
        np.add.at(sums, part_T, delta_T)
        np.add.at(counts, part_T, 1)
    return tuple((sums / np.maximum(counts, 1)).tolist())
