"""What the commands print."""

from __future__ import annotations

import torch
from rich.table import Table

from inference.routing.profile import RoutingProfile
from inference.routing_profile.making import Observed
from inference.routing_profile.paired import Interval
from inference.routing_profile.quality import Quality
from inference.routing_profile.tasks import TaskScores


def profile_table(profile: RoutingProfile) -> Table:
    """Everything the file says but its tensors."""
    table = _table(profile.id, "", "")
    for name, value in (
        ("mode", profile.mode),
        ("domain", profile.domain),
        ("made from", f"{profile.tokens:,} tokens"),
        ("checkpoint (routers)", f"{profile.checkpoint[:16]}…"),
        ("experts kept per layer", f"{profile.size} of {profile.experts}, in {profile.layers} routed layers"),
        ("gate mass covered on that text", f"{profile.covered:.1%}"),
        ("falls back below", f"{profile.coverage_min:.1%} of the prompt's"),
    ):
        table.add_row(name, value)
    return table


def kept_table(profile: RoutingProfile, observed: Observed | None = None) -> Table:
    """Which experts were kept in each layer; with what was observed, how much of it they carry."""
    table = _table("kept experts", "layer", "experts", "gate mass", "worth")
    for layer in range(profile.layers):
        kept_M = _kept(profile, layer)
        if kept_M is None:
            break
        shares = ["", ""]
        if observed is not None and profile.experts_LM is not None:
            mass_E = observed.mass_WHLE.sum((0, 1))[layer]
            shares = [
                f"{float(one[kept_M].sum() / one.sum()):.1%}" for one in (mass_E, observed.worth_LE[layer])
            ]
        table.add_row(str(layer + 1), " ".join(map(str, kept_M.tolist())), *shares)
    return table


def _kept(profile: RoutingProfile, layer: int) -> torch.Tensor | None:
    if profile.experts_LM is not None:
        return profile.experts_LM[layer]
    return None if profile.table_LVK is None else profile.table_LVK[layer].unique()


def quality_table(quality: Quality, scores: TaskScores | None) -> Table:
    """Dynamic and fixed routing side by side."""
    table = _table("held-out text", "", "dynamic", "fixed", "difference (95%)")
    table.add_row(
        "loss, nats per token",
        f"{quality.dynamic_nll:.4f}",
        f"{quality.dynamic_nll + quality.delta_nll.mean:.4f}",
        _interval(quality.delta_nll, ".4f"),
    )
    table.add_row(
        "  with falling back",
        "",
        f"{quality.dynamic_nll + quality.served_delta_nll.mean:.4f}",
        _interval(quality.served_delta_nll, ".4f"),
    )
    table.add_row("KL from dynamic, nats per token", "", "", _interval(quality.kl, ".4f"))
    table.add_row("likeliest token agrees", "", f"{quality.agreement:.2f}%", "")
    table.add_row(
        "next token right",
        f"{quality.dynamic_accuracy:.2f}%",
        f"{quality.fixed_accuracy:.2f}%",
        _interval(quality.delta_accuracy, ".2f"),
    )
    if scores is not None:
        table.add_row(
            f"next line right, of {scores.tasks}",
            str(scores.dynamic_exact),
            str(scores.fixed_exact),
            f"lost {scores.lost}, won {scores.won}, p = {scores.p_value:.2f}",
        )
        table.add_row(
            "characters of a line before the first wrong one",
            f"{scores.dynamic_prefix:.1f}%",
            f"{scores.fixed_prefix:.1f}%",
            _interval(scores.delta_prefix, ".1f"),
        )
    table.add_row(
        "gate mass covered", "", f"{quality.covered:.1%}", f"{quality.kept_share:.0%} of experts kept"
    )
    by_layer = " ".join(f"{share:.0%}" for share in quality.covered_L)
    table.add_row("  by layer", "", by_layer, "")
    table.add_row("windows that fall back", "", f"{quality.fell_back:.1%}", f"of {quality.windows}")
    return table


def _interval(interval: Interval, form: str) -> str:
    return f"{interval.mean:+{form}} ({interval.low:+{form}} … {interval.high:+{form}})"


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table
