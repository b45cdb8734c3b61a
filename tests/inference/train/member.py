"""One process of a training team, for `test_team.py`: trains three steps and saves its weights.

Usage: member.py RANK SIZE MEETING_FILE OUT_FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from inference.models.config import ModelConfig
from inference.train.corpus import SourceText
from inference.train.epochs import EpochSource
from inference.train.network import Network
from inference.train.settings import TrainSettings, nano_architecture
from inference.train.team import Team
from inference.train.trainer import Limit, Trainer
from inference.train.vocabulary import tokenizer_train

CODE = "def area(width, height):\n    return width * height\n\n\n"


def main(rank: int, size: int, meeting: Path, out: Path) -> None:
    torch.set_num_threads(1)
    tokenizer = tokenizer_train(texts=[CODE * 20], vocab_size=300)
    architecture = nano_architecture(vocab_size=tokenizer.get_vocab_size())
    architecture |= {"hidden_size": 32, "num_hidden_layers": 2, "moe_intermediate_size": 16}
    torch.manual_seed(5)
    network = Network(ModelConfig.from_dict(architecture))
    source = EpochSource(texts=[SourceText("a.py", CODE * 40)], tokenizer=tokenizer, seed=1, fim_rate=0.0)
    # The draft loss looks at the first rows of each process's part, so only without it is the sum the same.
    settings = TrainSettings(
        row_tokens=32, batch_tokens=256, mtp_weight=0.0, adam_lr=0.001, long_from_progress=1.0
    )
    team = Team.join(rank=rank, size=size, meeting_file=meeting)
    trainer = Trainer(network, source, settings, folder=out.parent, stage=f"of{size}", team=team)
    trainer.run(Limit(steps=3), say=lambda _line: None)
    if team.leads:
        save_file({name: value.contiguous() for name, value in network.state_dict().items()}, out)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
