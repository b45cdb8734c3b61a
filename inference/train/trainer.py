"""The training loop: one object that takes steps, keeps a log, and goes on where a killed run stopped."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from inference.train.balance import routers_balance
from inference.train.checkpoint import Snapshot, snapshot_read, snapshot_write
from inference.train.epochs import Cursor, EpochSource
from inference.train.losses import batch_losses
from inference.train.network import Network
from inference.train.optimizer import MuonAdamW
from inference.train.packing import Batch, Rows
from inference.train.settings import TrainSettings
from inference.train.team import Team

Probe = Callable[[Network], float]


@dataclass(frozen=True, slots=True)
class Limit:
    """Where a stage ends: at a number of steps (exactly repeatable) or of minutes (on a shared machine)."""

    steps: int | None = None
    minutes: float | None = None

    def progress(self, *, step: int, elapsed_s: float) -> float:
        """The share of the stage done, 0 to 1."""
        by_steps = step / self.steps if self.steps else 0.0
        by_time = elapsed_s / (self.minutes * 60) if self.minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    def describe(self) -> str:
        return f"{self.steps} steps" if self.steps else f"{self.minutes:g} minutes"


def rate_multiplier(settings: TrainSettings, *, step: int, progress: float) -> float:
    """Warm-up by steps, a plateau, then a straight line down to `final_lr_fraction` at progress 1."""
    warm = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    start = settings.decay_from_progress
    gone = max(0.0, progress - start) / (1 - start)
    return warm * (1 - gone * (1 - settings.final_lr_fraction))


class Trainer:
    """Owns network, optimiser, position in the data and log of one stage."""

    def __init__(
        self,
        network: Network,
        source: EpochSource,
        settings: TrainSettings,
        *,
        folder: Path,
        stage: str,
        team: Team = Team(),  # noqa: B008  # frozen
    ) -> None:
        self.network, self.source, self.settings, self.team = network, source, settings, team
        self.optimizer = MuonAdamW(
            network,
            muon_lr=settings.muon_lr,
            adam_lr=settings.adam_lr,
            weight_decay=settings.weight_decay,
            team=team,
        )
        self.step, self.tokens, self.elapsed_s = 0, 0, 0.0
        self.cursor = Cursor(settings.row_tokens)
        self.checkpoint_path = folder / f"{stage}.safetensors"
        self.log_path = folder / f"{stage}.log.jsonl"
        self._rows: tuple[Cursor, Rows] | None = None

    def resume(self) -> bool:
        """Restore the last checkpoint of this stage, if there is one, and forget log lines after it."""
        snapshot = snapshot_read(path=self.checkpoint_path)
        if snapshot is None:
            if self.team.leads:
                self.log_path.unlink(missing_ok=True)
            return False
        self.network.load_state_dict(snapshot.network)
        self.optimizer.load_named_state(snapshot.optimizer)
        torch.set_rng_state(snapshot.random_state)
        facts = snapshot.facts
        self.step, self.tokens, self.elapsed_s = facts["step"], facts["tokens"], facts["elapsed_s"]
        self.cursor = Cursor(**facts["cursor"])
        if not self.team.leads:
            return True
        kept = [line for line in log_read(self.log_path) if line["step"] <= self.step]
        self.log_path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
        return True

    def save(self) -> None:
        """Write the checkpoint atomically."""
        facts = {
            "step": self.step,
            "tokens": self.tokens,
            "elapsed_s": self.elapsed_s,
            "cursor": asdict(self.cursor),
            "settings": asdict(self.settings),
        }
        snapshot = Snapshot(
            network=dict(self.network.state_dict()),
            optimizer=self.optimizer.named_state(),
            random_state=torch.get_rng_state(),
            facts=facts,
        )
        snapshot_write(snapshot, path=self.checkpoint_path)

    def run(
        self,
        limit: Limit,
        *,
        save_every: int = 50,
        log_every: int = 10,
        probe: Probe | None = None,
        probe_every: int = 200,
        say: Callable[[str], None] = print,
    ) -> None:
        """Step until `limit`, logging and saving on the way and once at the end."""
        self.network.train()
        window: list[dict[str, Any]] = []
        while (progress := self._progress(limit)) < 1:
            window.append(self.take_step(progress))
            if not self.team.leads:
                continue
            ended = limit.progress(step=self.step, elapsed_s=self.elapsed_s) >= 1
            if self.step % log_every == 0 or ended:
                line = _summary(window)
                if probe is not None and (self.step % probe_every == 0 or ended):
                    line["heldout_bpb"] = self._probed(probe)
                with self.log_path.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(line) + "\n")
                say(progress_line(line, progress))
                window = []
            if self.step % save_every == 0 or ended:
                self.save()

    def _progress(self, limit: Limit) -> float:
        return self.team.agree(limit.progress(step=self.step, elapsed_s=self.elapsed_s))

    def _probed(self, probe: Probe) -> float:
        self.network.eval()
        value = probe(self.network)
        self.network.train()
        return value

    def take_step(self, progress: float) -> dict[str, Any]:
        """One optimiser step; returns what the log keeps of it."""
        started = time.monotonic()
        settings = self.settings
        batch = self.next_batch(progress)
        multiplier = rate_multiplier(settings, step=self.step, progress=progress)
        losses = batch_losses(self.network, batch)
        torch.autograd.backward(losses.next_token + settings.mtp_weight * losses.after_next)
        routers = self.network.routers()
        gradients = [parameter.grad for parameter in self.network.parameters() if parameter.grad is not None]
        self.team.add_up(gradients, scale=1 / self.team.size)
        self.team.add_up(router.load_E for router in routers)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), settings.gradient_norm_max)
        if not math.isfinite(float(norm)):
            raise FloatingPointError(f"step {self.step}: gradient not finite; lower the learning rates")
        self.optimizer.schedule(multiplier)
        self.optimizer.step()
        self.optimizer.zero_grad()
        shares = routers_balance(routers, step=settings.bias_step * multiplier)
        seconds, tokens = time.monotonic() - started, batch.id_RT.numel() * self.team.size
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        self.elapsed_s += seconds
        return {
            "step": self.step,
            "tokens": self.tokens,
            "elapsed_s": round(self.elapsed_s, 3),
            "loss": float(losses.next_token.detach()),
            "mtp_loss": float(losses.after_next.detach()),
            "gradient_norm": float(norm),
            "rate": multiplier,
            "tokens_per_s": tokens / seconds,
            "load": [share.tolist() for share in shares],
        }

    def next_batch(self, progress: float) -> Batch:
        """The next rows; enters a new epoch, or the phase of long rows, when it is time."""
        long = progress >= self.settings.long_from_progress
        row_tokens = self.settings.long_row_tokens if long else self.settings.row_tokens
        count = max(1, self.settings.batch_tokens // row_tokens)
        if row_tokens != self.cursor.row_tokens:
            self.cursor = Cursor(row_tokens, epoch=self.cursor.epoch + 1)
        rows = self._epoch_rows()
        if self.cursor.row + count > len(rows):
            if self.cursor.row == 0:
                raise ValueError(f"an epoch has {len(rows)} rows but a batch needs {count}: add text")
            self.cursor = Cursor(row_tokens, epoch=self.cursor.epoch + 1)
            rows = self._epoch_rows()
        share = self.team.share(count)
        batch = rows.batch(self.cursor.row + share.start, share.stop - share.start)
        self.cursor = replace(self.cursor, row=self.cursor.row + count)
        return batch

    def _epoch_rows(self) -> Rows:
        key = replace(self.cursor, row=0)
        if self._rows is None or self._rows[0] != key:
            self._rows = (key, self.source.rows(key))
        return self._rows[1]


def log_read(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a stage's log (a kill may leave half a line)."""
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def progress_line(line: dict[str, Any], progress: float) -> str:
    """One line for the terminal: loss in nats, expert load as smallest and largest share × experts."""
    shares = [share * len(layer) for layer in line["load"] for share in layer]
    heldout = f"  held-out {line['heldout_bpb']:.3f} bpb" if "heldout_bpb" in line else ""
    return (
        f"{progress:6.1%}  step {line['step']:5d}  loss {line['loss']:.3f}  mtp {line['mtp_loss']:.3f}"
        f"  {line['tokens_per_s']:6.0f} tok/s  load {min(shares):.2f}–{max(shares):.2f}{heldout}"
    )


def _summary(window: list[dict[str, Any]]) -> dict[str, Any]:
    """The last step's facts with losses, speed and load averaged over the window."""
    last = dict(window[-1])
    for key in ("loss", "mtp_loss", "tokens_per_s"):
        last[key] = round(sum(line[key] for line in window) / len(window), 4)
    loads = torch.tensor([line["load"] for line in window]).mean(dim=0)
    last["load"] = [[round(share, 5) for share in layer] for layer in loads.tolist()]
    return last
