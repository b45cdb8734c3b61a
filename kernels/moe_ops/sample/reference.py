"""The definition, with a whole sort of every row.

Cuts follow one another: `top_k` keeps the likeliest k; `top_p` the fewest of those that reach its share of
their mass; `min_p` those at least that fraction as likely as the best. A token is then drawn by inversion: it
is the first at which the running sum of probabilities exceeds the random number, in the order of tokens where
all are kept, in that of falling probability, equals by rising token, where a cut is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

LIMITS = 5  # columns of `limits_S5`: temperature, top_p, min_p, top_k, the uniform random number


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """What rows change about their logits before anything is drawn.

    Row s has the entries `first_S1[s]` … `first_S1[s + 1]`, each of another token: `count_N` is how often it
    was made, 0 where it is in the prompt alone, −1 where it is only biased. `strength_S3` are repetition,
    presence and frequency penalty. `mask_RB` has a bit per allowed token, lowest first in each byte;
    `mask_row_S` is −1 for rows without one. All lie on the CPU.
    """

    first_S1: torch.Tensor  # int32
    token_N: torch.Tensor  # int32
    count_N: torch.Tensor
    bias_N: torch.Tensor
    strength_S3: torch.Tensor
    mask_RB: torch.Tensor | None  # uint8
    mask_row_S: torch.Tensor  # int32


def choose(logits_SV: torch.Tensor, limits_S5: torch.Tensor, changes: Changes | None = None) -> torch.Tensor:
    """Token ids (S,), int64, on the CPU; −1 where the best logit is not finite, before or after the changes.

    `logits_SV` is fp32 and stays as it is; `limits_S5`, fp32 on the CPU, has per row temperature (0: the
    best token), top_p, min_p, top_k (0: all) and the uniform random number in [0, 1).
    """
    changed_SV = changed(logits_SV, changes).double()
    tokens = []
    for row_V, (temperature, top_p, min_p, top_k, uniform) in zip(
        changed_SV, limits_S5.tolist(), strict=True
    ):
        best, token = (one.item() for one in row_V.max(0))
        if temperature > 0:
            probability_V = ((row_V - best) / temperature).softmax(0)
            order_V = kept(probability_V, top_p, min_p, int(top_k))
            total_V = probability_V[order_V].cumsum(0)
            place = int(torch.searchsorted(total_V, uniform * total_V[-1], right=True))
            token = order_V[min(place, len(order_V) - 1)].item()
        tokens.append(token)
    finite_S = logits_SV.amax(-1).isfinite() & changed_SV.amax(-1).isfinite()
    return torch.tensor(tokens).masked_fill_(~finite_S.cpu(), -1)


def kept(probability_V: torch.Tensor, top_p: float, min_p: float, top_k: int) -> torch.Tensor:
    """The tokens that may be drawn, in the order of drawing."""
    if not (top_k > 0 or top_p < 1 or min_p > 0):
        return torch.arange(len(probability_V))
    sorted_V, order_V = probability_V.sort(descending=True, stable=True)
    if top_k > 0:
        sorted_V = sorted_V[:top_k]
    by_mass = int((sorted_V.cumsum(0) < top_p * sorted_V.sum()).sum()) + 1 if top_p < 1 else len(sorted_V)
    by_ratio = int((sorted_V >= min_p * sorted_V[0]).sum())
    return order_V[: min(by_mass, by_ratio)]


def changed(logits_SV: torch.Tensor, changes: Changes | None) -> torch.Tensor:
    """Logits with every row's changes; `logits_SV` itself when there are none.

    Repetition (Keskar et al., arXiv:1909.05858) divides positive logits of tokens seen anywhere, prompt
    included, and multiplies negative ones; then presence and frequency (OpenAI's definition) are taken off
    tokens of the completion, then biases are added. Tokens that a mask does not allow, or does not reach,
    are impossible.
    """
    if changes is None:
        return logits_SV
    changed_SV = logits_SV.clone()
    device = logits_SV.device
    row_N = torch.repeat_interleave(changes.first_S1.diff())
    where = (row_N.to(device), changes.token_N.long().to(device))
    repetition_N, presence_N, frequency_N = changes.strength_S3[row_N].to(device).T
    count_N, bias_N = changes.count_N.to(device), changes.bias_N.to(device)
    plain_N = changed_SV[where]
    value_N = torch.where(plain_N > 0, plain_N / repetition_N, plain_N * repetition_N)
    value_N = value_N - (presence_N * (count_N > 0) + frequency_N * count_N)
    changed_SV[where] = torch.where(count_N >= 0, value_N, plain_N) + bias_N
    if changes.mask_RB is not None:
        rows_R = (changes.mask_row_S >= 0).nonzero().squeeze(1)
        refused_RV = ~allowed(changes.mask_RB, changed_SV.shape[1])[changes.mask_row_S[rows_R]]
        rows_R = rows_R.to(device)
        changed_SV[rows_R] = changed_SV[rows_R].masked_fill_(refused_RV.to(device), -torch.inf)
    return changed_SV


def allowed(mask_RB: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """A mask's bits as bool (R, `vocabulary`)."""
    bits_RB8 = mask_RB[:, :, None] >> torch.arange(8, dtype=torch.uint8) & 1
    allowed_RV = bits_RB8.flatten(1)[:, :vocabulary].bool()
    return torch.nn.functional.pad(allowed_RV, (0, vocabulary - allowed_RV.shape[1]))


def token_logprobs(
    logits_SV: torch.Tensor, token_S: torch.Tensor, best: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Natural log probabilities of `token_S`, fp32 (S,); the `best` likeliest tokens, int64 (S, best),
    equals by rising token; and theirs, fp32. The rows of `logits_SV` (fp32) are finite or −inf.
    """
    logprob_SV = logits_SV.double().log_softmax(-1).float()
    token_SK = logits_SV.sort(dim=-1, descending=True, stable=True).indices[:, :best]
    return logprob_SV.gather(1, token_S[:, None]).squeeze(1), token_SK, logprob_SV.gather(1, token_SK)
