"""Curves of a run as small PNG files: loss and held-out bits per byte, and expert load over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_DPI = 90


class PlottingMissingError(RuntimeError):
    """matplotlib, a development dependency, is not installed."""


def curves_draw(*, stages: Sequence[tuple[str, list[dict[str, Any]]]], folder: Path) -> list[Path]:
    """Draw `loss.png` and `expert-load.png` from the stages' logs, one after the other on the token axis."""
    try:
        import matplotlib as mpl  # noqa: PLC0415  # a development dependency, needed here alone
    except ImportError as error:
        raise PlottingMissingError(
            "the curves need matplotlib: install the development extra, or export with --no-curves"
        ) from error
    mpl.use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    lines = _joined(stages)
    return [_draw_loss(lines, folder / "loss.png"), _draw_load(lines, folder / "expert-load.png")]


def _joined(stages: Sequence[tuple[str, list[dict[str, Any]]]]) -> list[dict[str, Any]]:
    """All log lines with `millions`, the tokens seen since the very beginning in millions."""
    joined: list[dict[str, Any]] = []
    before = 0
    for stage, lines in stages:
        joined += [{**line, "stage": stage, "millions": (before + line["tokens"]) / 1e6} for line in lines]
        before += lines[-1]["tokens"] if lines else 0
    return joined


def _draw_loss(lines: list[dict[str, Any]], path: Path) -> Path:
    from matplotlib import pyplot  # noqa: PLC0415  # see curves_draw

    figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for stage, colour in (("pretrain", "#1f5f8b"), ("chat", "#b5541c")):
        part = [line for line in lines if line["stage"] == stage]
        millions = [line["millions"] for line in part]
        axes.plot(
            millions, [line["loss"] for line in part], color=colour, lw=1.2, label=f"next token, {stage}"
        )
        axes.plot(
            millions, [line["mtp_loss"] for line in part],
            color=colour, lw=0.9, ls=":", label=f"token after next, {stage}",
        )  # fmt: skip
    axes.set(xlabel="tokens seen, millions", ylabel="training loss, nats per token")
    probed = [line for line in lines if "heldout_bpb" in line]
    right = axes.twinx()
    right.plot(
        [line["millions"] for line in probed], [line["heldout_bpb"] for line in probed],
        color="#333333", marker="o", ms=3, lw=0.8, label="held-out sample",
    )  # fmt: skip
    right.set_ylabel("held-out bits per byte")
    handles, labels = (
        a + b for a, b in zip(*(x.get_legend_handles_labels() for x in (axes, right)), strict=True)
    )
    axes.legend(handles, labels, fontsize=7, frameon=False)
    figure.savefig(path, dpi=_DPI)
    pyplot.close(figure)
    return path


def _draw_load(lines: list[dict[str, Any]], path: Path) -> Path:
    from matplotlib import pyplot  # noqa: PLC0415  # see curves_draw

    layers = len(lines[0]["load"])
    figure, panels = pyplot.subplots(
        1, layers, figsize=(1.8 * layers, 2.4), sharey=True, layout="constrained", squeeze=False
    )
    for layer, axes in enumerate(panels[0]):
        experts = len(lines[0]["load"][layer])
        for expert in range(experts):
            share = [line["load"][layer][expert] * experts for line in lines]
            axes.plot([line["millions"] for line in lines], share, lw=0.5, alpha=0.7)
        axes.axhline(1.0, color="#333333", lw=0.8, ls="--")
        axes.set_title("draft module" if layer == layers - 1 else f"MoE layer {layer + 1}", fontsize=8)
        axes.tick_params(labelsize=6)
    panels[0][0].set_ylabel("load (1 = even)", fontsize=7)
    panels[0][0].set_ylim(0, 4)
    figure.supxlabel("tokens seen, millions", fontsize=7)
    figure.savefig(path, dpi=_DPI)
    pyplot.close(figure)
    return path
