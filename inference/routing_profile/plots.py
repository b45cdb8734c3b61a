"""Pictures of what was measured. matplotlib is a development dependency."""

from __future__ import annotations

from pathlib import Path

from inference.routing_profile.quality import Quality


def quality_plot(quality: Quality, title: str, path: Path) -> bool:
    """Draw covered gate mass by layer and loss over an answer; False when matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 -- a development dependency, needed here alone
    except ImportError:
        return False
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    layers = range(1, len(quality.covered_L) + 1)
    left.bar(layers, quality.covered_L, color="#1f5f8b", label="gate mass covered")
    left.axhline(quality.kept_share, color="#b5541c", linestyle="--", label="experts kept")
    left.set(xlabel="routed layer", ylabel="share", ylim=(0, 1), xticks=list(layers))
    left.legend(fontsize=8, frameon=False)
    parts = len(quality.delta_by_position)
    right.plot(range(1, parts + 1), quality.delta_by_position, color="#1f5f8b", marker="o")
    right.axhline(0, color="0.6", linewidth=0.8)
    right.set(xlabel=f"part of the answer (of {parts})", ylabel="loss above dynamic, nats per token")
    figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return True
