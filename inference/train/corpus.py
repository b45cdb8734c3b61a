"""The corpus: the running interpreter's own standard library, its reference topics and built-in docstrings.

Only files that come with Python (PSF licence) are read; nothing is downloaded. A document belongs to the
held-out split by the hash of its name alone, so the split is the same on every machine and for every seed.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "heldout"]

HELDOUT_ONE_IN = 20
_SKIPPED_FOLDERS = {"site-packages", "test", "tests", "idle_test", "encodings", "pydoc_data", "__pycache__"}
_SKIPPED_PREFIXES = ("_sysconfigdata", "config-", "__phello__")
_BUILTIN_MODULES = (
    "builtins", "math", "cmath", "itertools", "time", "gc", "sys", "posix", "marshal", "binascii", "zlib",
    "array", "unicodedata", "_struct", "_functools", "_operator", "_collections", "_csv", "_json", "_random",
    "fcntl", "select", "_socket", "_datetime", "_io", "_thread", "_sre", "_string", "_heapq", "_bisect",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SourceText:
    """One document: `name` is its path under the library (or `topic/…`, `builtin/…`)."""

    name: str
    text: str

    @property
    def split(self) -> Split:
        return split_of(self.name)


def split_of(name: str) -> Split:
    """Which split the document `name` belongs to, by SHA-256 of its name."""
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
    return "heldout" if number % HELDOUT_ONE_IN == 0 else "train"


def iter_corpus() -> Iterator[SourceText]:
    """All documents in a fixed order, exact duplicates and near-empty files left out."""
    seen: set[bytes] = set()
    for source in (*_library_files(), *_topics(), *_builtin_docs()):
        digest = hashlib.sha256(source.text.strip().encode()).digest()
        if len(source.text) >= 64 and digest not in seen:
            seen.add(digest)
            yield source


def corpus_write(*, folder: Path) -> dict[str, int]:
    """Write `train.jsonl`, `heldout.jsonl` and `manifest.json` under `folder`; returns bytes per split."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes = {"train": 0, "heldout": 0}
    manifest = []
    parts: dict[str, list[str]] = {"train": [], "heldout": []}
    for source in iter_corpus():
        data = source.text.encode()
        sizes[source.split] += len(data)
        digest = hashlib.sha256(data).hexdigest()
        manifest.append({"name": source.name, "split": source.split, "bytes": len(data), "sha256": digest})
        parts[source.split].append(json.dumps(asdict(source), ensure_ascii=False))
    for split, lines in parts.items():
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    summary = {"python": sys.version.split()[0], "bytes": sizes, "documents": manifest}
    (folder / "manifest.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    return sizes


def corpus_read(*, folder: Path, split: Split) -> list[SourceText]:
    """The documents of one split as written by `corpus_write`."""
    with (folder / f"{split}.jsonl").open(encoding="utf-8") as lines:
        return [SourceText(**json.loads(line)) for line in lines]


def _library_files() -> Iterator[SourceText]:
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if _SKIPPED_FOLDERS.intersection(parts) or parts[0].startswith(_SKIPPED_PREFIXES):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a handful of library files declare another encoding
        yield SourceText("/".join(parts), text.replace("\r\n", "\n"))


def _topics() -> Iterator[SourceText]:
    """The language reference's topics that ship for `help()`."""
    topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
    for name in sorted(topics):
        yield SourceText(f"topic/{name}", topics[name].strip() + "\n")


def _builtin_docs() -> Iterator[SourceText]:
    """Signatures and docstrings of modules written in C, which have no source file here."""
    for module_name in _BUILTIN_MODULES:
        try:
            module = importlib.import_module(module_name)
        except ImportError:
            continue
        sections = [(inspect.getdoc(module) or "").strip()]
        sections += [f"{name}{signature}\n{doc}" for name, signature, doc in callable_docs(module)]
        yield SourceText(f"builtin/{module_name}", "\n\n".join(filter(None, sections)) + "\n")


def callable_docs(module: object) -> Iterator[tuple[str, str, str]]:
    """`(qualified name, signature or "", docstring)` of public callables and their public methods."""
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or not callable(value) or not inspect.getdoc(value):
            continue
        yield name, _signature(value), inspect.getdoc(value) or ""
        if not inspect.isclass(value) or issubclass(value, BaseException):
            continue
        for method_name, method in sorted(vars(value).items()):
            if not method_name.startswith("_") and callable(method) and inspect.getdoc(method):
                yield f"{name}.{method_name}", _signature(method), inspect.getdoc(method) or ""


def _signature(value: object) -> str:
    """The text signature without the receiver that C functions carry, or ""."""
    text = getattr(value, "__text_signature__", None) or ""
    for receiver in ("$module", "$self", "$type"):
        text = (
            text.replace(f"({receiver}, /, ", "(")
            .replace(f"({receiver}, /)", "()")
            .replace(f"({receiver}, ", "(")
        )
    return text if "$" not in text else ""
