"""The stages over one run folder. Each reads what earlier stages wrote and may be repeated or resumed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from inference.models.config import ModelConfig
from inference.train.checkpoint import snapshot_read
from inference.train.corpus import SourceText, Split, corpus_read, corpus_write
from inference.train.epochs import EpochSource
from inference.train.held_out import bits_per_byte
from inference.train.network import Network
from inference.train.packing import Document
from inference.train.pairs import chat_documents, pairs_make
from inference.train.settings import CHAT, PRETRAIN, VOCABULARY, TrainSettings, nano_architecture
from inference.train.team import Team
from inference.train.trainer import Limit, Trainer
from inference.train.vocabulary import tokenizer_train


class StageError(RuntimeError):
    """A stage lacks what an earlier one makes; the message names the command to run."""


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a run keeps its corpus, tokenizer, checkpoints and logs."""

    path: Path

    @property
    def corpus(self) -> Path:
        return self.path / "corpus"

    @property
    def tokenizer_path(self) -> Path:
        return self.path / "tokenizer.json"

    def texts(self, split: Split) -> list[SourceText]:
        self._need(self.corpus / f"{split}.jsonl", "corpus")
        return corpus_read(folder=self.corpus, split=split)

    def tokenizer(self) -> Tokenizer:
        self._need(self.tokenizer_path, "tokenizer")
        return Tokenizer.from_file(str(self.tokenizer_path))

    def trained(self, stage: str) -> Network:
        """The network as `stage` last saved it."""
        snapshot = snapshot_read(path=self.path / f"{stage}.safetensors")
        if snapshot is None:
            raise StageError(f"no checkpoint of stage {stage!r} yet: run `python -m inference.train {stage}`")
        network = new_network(self.tokenizer().get_vocab_size())
        network.load_state_dict(snapshot.network)
        return network.eval()

    def pairs(self) -> list[Document]:
        """The chat stage's documents, from the training split alone."""
        return chat_documents(pairs_make(self.texts("train")), self.tokenizer())

    def _need(self, path: Path, stage: str) -> None:
        if not path.exists():
            raise StageError(f"{path} is missing: run `python -m inference.train {stage}` first")


def new_network(vocab_size: int) -> Network:
    """A fresh network of nano's architecture, from torch's current random state."""
    return Network(ModelConfig.from_dict(nano_architecture(vocab_size=vocab_size)))


def corpus_make(run: RunFolder) -> None:
    """Collect the corpus and split it."""
    sizes = corpus_write(folder=run.corpus)
    print(f"corpus: {sizes['train'] / 1e6:.2f} MB to train on, {sizes['heldout'] / 1e6:.2f} MB held out")


def tokenizer_make(run: RunFolder) -> None:
    """Train the tokenizer on the training split."""
    texts = run.texts("train")
    tokenizer = tokenizer_train(texts=(source.text for source in texts), vocab_size=VOCABULARY)
    run.path.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(run.tokenizer_path))
    sample = run.texts("heldout")
    tokens = sum(len(tokenizer.encode(source.text).ids) for source in sample)
    size = sum(len(source.text.encode()) for source in sample)
    print(f"tokenizer: {tokenizer.get_vocab_size()} entries, {size / tokens:.2f} held-out bytes per token")


def pretrain(run: RunFolder, *, limit: Limit, seed: int, team: Team) -> None:
    """Next-token training with fill-in-the-middle; question/answer pairs join in with the long rows."""
    torch.manual_seed(seed)
    network = new_network(run.tokenizer().get_vocab_size())
    _train(run, network, stage="pretrain", settings=PRETRAIN, limit=limit, seed=seed, team=team)


def chat(run: RunFolder, *, limit: Limit, seed: int, team: Team) -> None:
    """Question answering on top of the pre-trained network, mixed with corpus so that infilling is kept."""
    torch.manual_seed(seed)
    _train(run, run.trained("pretrain"), stage="chat", settings=CHAT, limit=limit, seed=seed + 1, team=team)


def _train(
    run: RunFolder,
    network: Network,
    *,
    stage: str,
    settings: TrainSettings,
    limit: Limit,
    seed: int,
    team: Team,
) -> None:
    tokenizer, held_out = run.tokenizer(), run.texts("heldout")
    source = EpochSource(
        texts=run.texts("train"),
        tokenizer=tokenizer,
        seed=seed,
        fim_rate=settings.fim_rate,
        pairs=run.pairs(),
        pair_share=settings.pair_share,
        pair_row_tokens=settings.long_row_tokens,
    )
    trainer = Trainer(network, source, settings, folder=run.path, stage=stage, team=team)
    resumed = trainer.resume()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    where = f"resumes after step {trainer.step}" if resumed else "starts"
    if team.leads:
        print(f"{stage}: {parameters / 1e6:.2f} M parameters, {where}, {limit.describe()} in all", flush=True)
    few = held_out[::3]

    def say(line: str) -> None:
        print(line, flush=True)

    trainer.run(limit, probe=lambda net: bits_per_byte(net, few, tokenizer), say=say)
