"""A Hugging Face folder as a bf16 GGUF file, by llama.cpp's own converter, without a vocabulary.

`python -m bench.peers.gguf_write SOURCES MODEL OUT`, SOURCES being llama.cpp's folder. The timing tools feed
random token ids and need no text, so the file names the vocabulary's size only; then any tokenizer will do,
also one the converter does not know.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any


def gguf_write(*, sources: Path, model: Path, out: Path) -> None:
    """Convert the folder `model` of the DeepSeek family to the file `out`."""
    sys.path[:0] = [str(sources), str(sources / "gguf-py")]
    gguf = importlib.import_module("gguf")
    family: Any = importlib.import_module("conversion.deepseek").DeepseekV2Model

    class WithoutVocabulary(family):  # type: ignore[misc]  # the class is known only at run time
        """The converter of the family, less the tokenizer."""

        model_arch = family.model_arch

        def set_vocab(self) -> None:
            self._set_vocab_none()

        def set_gguf_parameters(self) -> None:
            """llama.cpp tells plain queries from low-rank ones by the layer count unless this says so."""
            super().set_gguf_parameters()
            if self.hparams.get("q_lora_rank") is None:
                self.gguf_writer.add_q_lora_rank(0)

    WithoutVocabulary(model, gguf.LlamaFileType.MOSTLY_BF16, out).write()


if __name__ == "__main__":
    source_folder, model_folder, target = (Path(argument) for argument in sys.argv[1:4])
    gguf_write(sources=source_folder, model=model_folder, out=target)
