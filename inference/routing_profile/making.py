"""From a text to a profile: read it, add up what each expert is worth, keep the best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from inference.models.decoder import Decoder
from inference.routing.profile import Mode, ProfileError, RoutingProfile, routers_digest
from inference.routing.selection import keep_best, least_size
from inference.routing_profile.scores import ExpertWorth, Together, TokenMass, half_mass
from inference.routing_profile.windows import Reader, Window
from moe_ops.router import RouterSpec

FALLBACK_SHARE = 0.05
"""Unless told otherwise, so many of the windows a profile is made from would fall below its threshold."""

_ROUNDING = 1e-6

Told = Callable[[int, int], None]  # windows read, tokens read


@dataclass(frozen=True, slots=True)
class Observed:
    """What reading a text showed.

    `mass_WHLE` is the gate mass of each window's prompt and answer, `worth_LE` the sum of
    `gate · ‖expert output‖`; `token_mass` belongs to hash mode.
    """

    spec: RouterSpec
    checkpoint: str
    tokens: int
    vocabulary: int
    worth_LE: torch.Tensor
    mass_WHLE: torch.Tensor
    token_mass: TokenMass | None


def observe(model: Decoder, windows: Sequence[Window], *, by_token: bool, told: Told) -> Observed:
    """Read all windows with dynamic routing."""
    routers = model.routers
    layers, experts = len(routers), len(routers[0][0])
    worth = ExpertWorth(layers=layers, experts=experts)
    ids = [token for window in windows for token in window.tokens] if by_token else []
    token_mass = TokenMass(ids, layers=layers, experts=experts) if by_token else None
    reader = Reader(model, length=max(len(window.tokens) for window in windows))
    masses, tokens = [], 0
    for number, window in enumerate(windows, 1):
        batch = reader.batch(window, 0, len(window.tokens))
        mass = half_mass(len(window.tokens), window.prompt, layers=layers, experts=experts)
        seen = Together(worth, mass)
        if token_mass is not None:
            token_mass.begin(batch.token_T)
            seen = Together(worth, mass, token_mass)
        reader.read(replace(batch, observer=seen, last_S=batch.last_S[-1:]))
        masses.append(mass.mass_RLE)
        tokens += len(window.tokens)
        told(number, tokens)
    return Observed(
        spec=routers[0][1],
        checkpoint=routers_digest(weight for weight, _ in routers),
        tokens=tokens,
        vocabulary=model.config.vocab_size,
        worth_LE=worth.worth_LE,
        mass_WHLE=torch.stack(masses),
        token_mass=token_mass,
    )


def size_default(mode: Mode, spec: RouterSpec, experts: int) -> int:
    """Half of all experts for a pool, twice the chosen ones for a session, the chosen ones for a table."""
    if mode == "hash":
        return spec.top_k
    wanted = experts // 2 if mode == "pool" else 2 * spec.top_k
    return min(max(wanted, least_size(spec, experts)), experts)


def profile_make(
    observed: Observed, *, mode: Mode, size: int | None, coverage_min: float | None, domain: str
) -> RoutingProfile:
    """Keep the best. Raises `ProfileError` for a size that can not be."""
    layers, experts = observed.worth_LE.shape
    spec = observed.spec
    wanted = size_default(mode, spec, experts) if size is None else size
    if mode == "hash" and wanted != spec.top_k:
        raise ProfileError(f"a table names as many experts as a token uses: {spec.top_k}, not {wanted}")
    profile = RoutingProfile(
        mode=mode, domain=domain, checkpoint=observed.checkpoint, layers=layers, experts=experts, size=wanted,
        coverage_min=0.0, covered=1.0, tokens=observed.tokens,
    )  # fmt: skip
    if mode == "hash":
        table_LVK, covered = _table(observed)
        return replace(profile, table_LVK=table_LVK, covered=covered, coverage_min=coverage_min or 0.0)
    if mode == "pool":
        kept_LE = keep_best(observed.worth_LE, wanted, spec)
        experts_LM = torch.stack([kept_E.nonzero().squeeze(1) for kept_E in kept_LE])
        profile = replace(profile, experts_LM=experts_LM, size=experts_LM.shape[1])
    prompt_W, answer_W = window_shares(observed, profile)
    lowest = max(float(prompt_W.quantile(FALLBACK_SHARE)) - _ROUNDING, 0.0)
    weight_W = observed.mass_WHLE[:, 1].sum((1, 2))
    return replace(
        profile,
        covered=float((answer_W * weight_W).sum() / weight_W.sum()),
        coverage_min=lowest if coverage_min is None else coverage_min,
    )


def window_shares(observed: Observed, profile: RoutingProfile) -> tuple[torch.Tensor, torch.Tensor]:
    """Share of the gate mass of each window's prompt and of its answer within what would be kept for it."""
    if profile.experts_LM is not None:
        mask_LE = torch.zeros(profile.layers, profile.experts, dtype=torch.bool)
        kept_WLE = mask_LE.scatter_(1, profile.experts_LM, True).expand(len(observed.mass_WHLE), -1, -1)
    else:
        prompts = observed.mass_WHLE[:, 0]
        kept_WLE = torch.stack([keep_best(mass_LE, profile.size, observed.spec) for mass_LE in prompts])
    inside_WH = (observed.mass_WHLE * kept_WLE[:, None]).sum((2, 3))
    share_WH = inside_WH / observed.mass_WHLE.sum((2, 3)).clamp(min=1e-30)
    return share_WH[:, 0], share_WH[:, 1]


def _table(observed: Observed) -> tuple[torch.Tensor, float]:
    """Experts by token id, best first by gate mass; tokens that were not seen take the best of all."""
    seen = observed.token_mass
    if seen is None:
        raise ProfileError("a table needs gate mass by token")
    top_k = observed.spec.top_k
    best_LK = observed.worth_LE.topk(top_k, dim=-1).indices
    table_LVK = best_LK.to(torch.int16)[:, None].repeat(1, observed.vocabulary, 1)
    worth_LE = observed.worth_LE / observed.worth_LE.sum(-1, keepdim=True)
    ranked_LSE = seen.mass_LSE + 1e-6 * worth_LE[:, None].float()  # fills up where few experts were chosen
    chosen_LSK = ranked_LSE.topk(top_k, dim=-1).indices
    table_LVK[:, seen.ids_S] = chosen_LSK.to(torch.int16)
    return table_LVK, float(seen.mass_LSE.gather(2, chosen_LSK).sum() / seen.mass_LSE.sum())
