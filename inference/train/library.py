"""What the standard library says about itself: names with their signatures and docstrings."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from inference.train.corpus import SourceText, callable_docs

# Where users import a name from, when it is not where it is defined.
_ALIASES = (
    ("posixpath.", "os.path."), ("random.Random.", "random."), ("asyncio.events.", "asyncio."),
    ("asyncio.tasks.", "asyncio."), ("asyncio.runners.", "asyncio."), ("asyncio.queues.", "asyncio."),
    ("asyncio.streams.", "asyncio."), ("unittest.case.", "unittest."), ("json.decoder.", "json."),
    ("json.encoder.", "json."), ("multiprocessing.context.", "multiprocessing."),
)  # fmt: skip
_BUILTIN_NAMES = {
    "builtins": "", "_functools": "functools", "_collections": "collections", "_csv": "csv",
    "_random": "random",
    "_struct": "struct", "_operator": "operator", "_datetime": "datetime", "_io": "io", "_heapq": "heapq",
    "_bisect": "bisect", "_socket": "socket", "posix": "os",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """One documented thing: `name` as users write it (`textwrap.dedent`), `signature` as in source."""

    name: str
    kind: str
    signature: str
    summary: str


def entries_of(source: SourceText) -> Iterator[Entry]:
    """The documented public names of one corpus document; private and test modules have none."""
    if source.name.startswith("builtin/"):
        yield from _builtin_entries(source.name.removeprefix("builtin/"))
    elif source.name.endswith(".py"):
        module = source.name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if not any(part.startswith("_") for part in module.split(".")):
            yield from _module_entries(module, source.text)


def user_name(name: str) -> str:
    """`name` as users import it: `os.path.join` for `posixpath.join`."""
    for prefix, public in _ALIASES:
        if name.startswith(prefix):
            return public + name.removeprefix(prefix)
    return name


def first_paragraph(doc: str, *, characters_max: int = 360) -> str:
    """The docstring's first paragraph on one line, without a leading signature; "" when there is no prose."""
    paragraphs = [" ".join(part.split()) for part in re.split(r"\n\s*\n", doc.strip())]
    while paragraphs and (len(paragraphs[0]) < 12 or re.match(r"^[\w.]+\(.*\)( -{1,2}>.*)?$", paragraphs[0])):
        paragraphs.pop(0)
    if not paragraphs:
        return ""
    text = re.sub(r"^[\w.]+\([^)]*\)\s*(-{1,2}>\s*[\w. ]+)?\s*(--|:|–)?\s*", "", paragraphs[0])
    if len(text) > characters_max:
        cut = text.rfind(". ", 0, characters_max)
        text = text[: cut + 1] if cut > 40 else ""
    text = text.strip()
    if not text or not text[0].isalpha() or ">>>" in text:
        return ""
    text = text[0].upper() + text[1:]
    return text if text[-1] in ".!?" else text.rstrip(":;,") + "."


def _module_entries(module: str, text: str) -> Iterator[Entry]:
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return
    if summary := first_paragraph(ast.get_docstring(tree) or ""):
        yield Entry(module, "module", "", summary)
    for node in tree.body:
        yield from _definition(node, module)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                yield from _definition(inner, f"{module}.{node.name}", method=True)


def _definition(node: ast.stmt, prefix: str, *, method: bool = False) -> Iterator[Entry]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return
    if node.name.startswith("_"):
        return
    summary = first_paragraph(ast.get_docstring(node) or "")
    if not summary:
        return
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(ast.unparse(base) for base in node.bases)
        yield Entry(f"{prefix}.{node.name}", "class", f"class {node.name}({bases})", summary)
    else:
        word = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
        signature = f"{word} {node.name}({ast.unparse(node.args)})"
        yield Entry(f"{prefix}.{node.name}", "method" if method else "function", signature, summary)


def _builtin_entries(module_name: str) -> Iterator[Entry]:
    public = _BUILTIN_NAMES.get(module_name, module_name)
    if public.startswith("_"):
        return
    module = importlib.import_module(module_name)
    for name, signature, doc in callable_docs(module):
        summary = first_paragraph(doc)
        if summary:
            kind = "method" if "." in name else "class" if name[:1].isupper() else "function"
            full = f"{public}.{name}" if public else name
            last = name.rsplit(".", 1)[-1]
            yield Entry(full, kind, f"def {last}{signature}" if signature else "", summary)
