"""Starting the processes that run one model together, all on this machine, and noticing when one is gone."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import msgspec

from inference.engine.types import EngineConfig
from inference.models.config import ModelConfig
from inference.models.config_file import read_config
from inference.models.interface import CausalModel
from inference.parallel.loading import load_part
from inference.parallel.ranks import Ranks
from inference.parallel.sharding import ShardPlan

_END_LIMIT_S = 10.0
_log = logging.getLogger(__name__)


class Group:
    """The processes of ranks 1 and up, started by this one, which is rank 0 and leads. When one of them ends
    before `close`, this process ends too, at once: what the others hold of the model is of no use alone.
    `part` says how each gets its own.
    """

    def __init__(self, path: Path, config: EngineConfig) -> None:
        """Raises `ConfigError`, and `ValueError` when heads, widths or experts can not be shared evenly."""
        sharing_check(path, config)
        self._folder = Path(tempfile.mkdtemp(prefix="ranks-"))
        self._closing = False
        self.part = Part(str(path), str(self._folder / "meeting"), config)
        orders = msgspec.json.encode(self.part).decode()
        self._others = [
            subprocess.Popen(
                [sys.executable, "-m", "inference.parallel.process", str(rank), orders],
                stdin=subprocess.DEVNULL,
            )
            for rank in range(1, config.ranks)
        ]
        for rank, other in enumerate(self._others, 1):
            threading.Thread(target=self._watch, args=(rank, other), name=f"rank {rank}", daemon=True).start()

    def close(self) -> None:
        """Wait for the others, who were told to end."""
        self._closing = True
        for other in self._others:
            try:
                other.wait(_END_LIMIT_S)
            except subprocess.TimeoutExpired:
                other.kill()
                other.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _watch(self, rank: int, other: subprocess.Popen[bytes]) -> None:
        status = other.wait()
        if status and not self._closing:  # told to stop it ends with 0
            group_lost(f"the process of rank {rank} ended with status {status}")


class Part(msgspec.Struct, frozen=True):
    """What a process must know to hold its part of a model."""

    model_dir: str
    meeting_file: str
    config: EngineConfig

    def load(self, rank: int) -> tuple[CausalModel, Ranks]:
        """Read this rank's part; back when all have theirs. Raises what `load_part` raises, and
        GroupLostError when one of the others does not come.
        """
        if sys.platform == "linux":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # nobody else is to be talked to
        config = self.config
        ranks = Ranks.join(
            rank=rank,
            size=config.ranks,
            meeting_file=Path(self.meeting_file),
            limit_s=config.rank_limit_s,
        )
        model = load_part(
            Path(self.model_dir),
            ranks,
            experts=config.expert_layout,
            weights=config.weights,
            activations=config.activations,
            mtp=config.speculate,
            cache_dir=None if config.cache_dir is None else Path(config.cache_dir),
        )
        ranks.meet()
        return model, ranks


def sharing_check(path: Path, config: EngineConfig) -> None:
    """Raise `ValueError`, naming what is wrong, unless the model in `path` can be shared by the ranks: its
    family is DeepSeek's, and its sizes can be divided.
    """
    data, source = read_config(path)
    ShardPlan(ModelConfig.from_dict(data, source=source), Ranks(size=config.ranks), config.expert_layout)


def group_lost(why: str) -> None:
    """End this process: without all ranks it can compute nothing, and whoever started it starts it again."""
    _log.critical("the processes that run the model together have lost one another: %s", why)
    logging.shutdown()
    os._exit(os.EX_SOFTWARE)
