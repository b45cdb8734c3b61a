"""Text to token ids and back, from a checkpoint folder's own tokenizer files.

Control tokens come from the template or by name, never from a caller's text: plain text is encoded by a
second tokenizer that does not know them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers

from inference.chat_template import MARK, ChatTemplate, ChatTemplateError
from inference.tokenization.tiktoken_model import tiktoken_model_read
from inference.tokenization.tokenizer_json import tokenizer_json_read
from inference.tokenization.vocabulary import TokenizerError, Vocabulary, json_read

_FIM_NAMES = ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")

__all__ = ["ChatTemplateError", "Tokenizer", "TokenizerError"]


class Tokenizer:
    """A byte-level BPE tokenizer with control tokens, as the DeepSeek and Kimi families use.

    `token_bytes[id]` are the bytes a token stands for, empty for control tokens; `eos_ids` end a generation.
    """

    def __init__(
        self,
        *,
        plain: tokenizers.Tokenizer,
        added: dict[str, int],
        token_bytes: tuple[bytes, ...],
        bos_id: int | None,
        eos_ids: frozenset[int],
        template: ChatTemplate | None,
    ) -> None:
        self._plain = plain
        self._added = added
        self._names = {id_: name for name, id_ in added.items()}
        self._template = template
        longest_first = sorted(added, key=len, reverse=True)
        names = "|".join(map(re.escape, longest_first)) or "(?!)"
        self._control = re.compile(f"(?<!{MARK})(?:{names})")
        self.token_bytes = token_bytes
        self.bos_id = bos_id
        self.eos_ids = eos_ids
        self.vocab_size = len(token_bytes)

    @classmethod
    def from_dir(cls, path: str | Path) -> Tokenizer:
        """Read `tokenizer.json` or, without it, `tiktoken.model`; `tokenizer_config.json`,
        `chat_template.jinja` and the end tokens. Raises `TokenizerError`.
        """
        folder = Path(path)
        settings = json_read(folder / "tokenizer_config.json")
        words = _vocabulary(folder, settings)
        added, size = words.added, len(words.token_bytes)
        bos, eos = (_token_name(settings.get(key)) for key in ("bos_token", "eos_token"))
        config, generation = (json_read(folder / f"{name}.json") for name in ("config", "generation_config"))
        eos_ids = {added[eos]} if eos in added else set()
        for source in (config, generation):
            eos_ids.update(_ids(source.get("eos_token_id"), size))
        bos_ids = [added[bos]] if bos in added else _ids(config.get("bos_token_id"), size)
        if not (words.begins or settings.get("add_bos_token") is True):
            bos_ids = []
        variables = {"bos_token": bos or "", "eos_token": eos or ""}
        template, source_text = None, _template_source(folder, settings)
        if source_text is not None:
            opening = frozenset(token[0] for token in added)
            template = ChatTemplate(source_text, variables=variables, opening=opening)
        return cls(
            plain=words.plain,
            added=added,
            token_bytes=words.token_bytes,
            bos_id=bos_ids[0] if bos_ids else None,
            eos_ids=frozenset(eos_ids),
            template=template,
        )

    def encode(self, text: str, *, add_bos: bool = False, allow_special: bool = False) -> list[int]:
        """Token ids of `text`. Control tokens spelled in it are ordinary text unless `allow_special`.

        `allow_special` is for text that this class made (`apply_chat_template`), not for text that came from
        outside.
        """
        ids = [self.bos_id] if add_bos and self.bos_id is not None else []
        if not allow_special:
            return ids + self._encode_plain(text)
        end = 0
        for found in self._control.finditer(text):
            ids += self._encode_plain(text[end : found.start()])
            ids.append(self._added[found[0]])
            end = found.end()
        return ids + self._encode_plain(text[end:])

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids` without control tokens; U+FFFD for bytes that are no UTF-8."""
        known = (self.token_bytes[id_] for id_ in ids if id_ < self.vocab_size)
        return b"".join(known).decode("utf-8", errors="replace")

    @property
    def chat_template(self) -> str:
        """The chat template's source; empty without one."""
        return "" if self._template is None else self._template.source

    @property
    def accepts_tools(self) -> bool:
        """Whether the chat template has a place for tool definitions."""
        return self._template is not None and self._template.accepts_tools

    def token_name(self, token_id: int) -> tuple[str, bytes]:
        """How a token is shown, and the bytes it stands for: a control token by its name, bytes that are no
        UTF-8 of their own as `bytes:\\x…`.
        """
        data = self.token_bytes[token_id] if token_id < self.vocab_size else b""
        if not data:
            return self._names.get(token_id, f"<token {token_id}>"), data
        try:
            return data.decode(), data
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data), data

    def apply_chat_template(
        self,
        messages: list[dict[str, object]],
        add_generation_prompt: bool = True,
        tools: list[dict[str, object]] | None = None,
    ) -> str:
        """The conversation in the checkpoint's format, for `encode(…, allow_special=True)`.

        Callers' text carries invisible marks that keep it from spelling control tokens. Raises
        `ChatTemplateError`.
        """
        if self._template is None:
            raise ChatTemplateError("this model has no chat template")
        return self._template.render(messages, add_generation_prompt=add_generation_prompt, tools=tools)

    def encode_chat(
        self,
        messages: list[dict[str, object]],
        add_generation_prompt: bool = True,
        tools: list[dict[str, object]] | None = None,
    ) -> list[int]:
        """Token ids of a conversation. Raises `ChatTemplateError`."""
        text = self.apply_chat_template(messages, add_generation_prompt, tools)
        return self.encode(text, allow_special=True)

    def fim_prompt(self, prefix: str, suffix: str) -> list[int]:
        """Ids that ask for what belongs between `prefix` and `suffix`: BOS, then prefix-suffix-middle."""
        if any(name not in self._added for name in _FIM_NAMES):
            raise TokenizerError("this model has no fill-in-the-middle tokens")
        begin, hole, end = (self._added[name] for name in _FIM_NAMES)
        ids = [] if self.bos_id is None else [self.bos_id]
        return [*ids, begin, *self._encode_plain(prefix), hole, *self._encode_plain(suffix), end]

    def _encode_plain(self, text: str) -> list[int]:
        ids: list[int] = self._plain.encode(text.replace(MARK, ""), add_special_tokens=False).ids
        return ids


def _vocabulary(folder: Path, settings: dict[str, Any]) -> Vocabulary:
    ranks = folder / "tiktoken.model"
    if ranks.exists() and not (folder / "tokenizer.json").exists():
        return tiktoken_model_read(ranks, settings)
    return tokenizer_json_read(folder / "tokenizer.json")


def _token_name(entry: object) -> str | None:
    """A token of tokenizer_config.json: its text, or an object with the text as `content`."""
    content = entry.get("content") if isinstance(entry, dict) else entry
    return content if isinstance(content, str) else None


def _ids(entry: object, vocabulary: int) -> list[int]:
    """One id, a list of ids, or nothing; what stands for no token is passed over."""
    items = entry if isinstance(entry, list) else [entry]
    return [item for item in items if isinstance(item, int) and 0 <= item < vocabulary]


def _template_source(folder: Path, settings: dict[str, Any]) -> str | None:
    """The chat template: its own file, or the entry of tokenizer_config.json (the default one of several)."""
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    entry = settings.get("chat_template")
    if isinstance(entry, list):
        named = {item.get("name"): item.get("template") for item in entry if isinstance(item, dict)}
        entry = named.get("default")
    return entry if isinstance(entry, str) else None
