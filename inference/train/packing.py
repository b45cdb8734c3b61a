"""Documents packed into rows of one length: positions restart, attention and labels stay inside a document.

Shape suffixes: R rows, T tokens of a row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

IGNORE = -100
_WAITING_MAX = 64


@dataclass(frozen=True, slots=True)
class Document:
    """Token ids (the first one BOS), from which index on they are learned (a chat answer's start: only the
    answer), and whether they may be cut and continued after another BOS.
    """

    ids: Sequence[int]
    learn_from: int = 0
    divisible: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows ready for the model; `label_RT[i]` is the token after `i`, or `IGNORE`."""

    id_RT: torch.Tensor
    label_RT: torch.Tensor
    position_RT: torch.Tensor
    document_RT: torch.Tensor

    def attention_mask(self) -> torch.Tensor:
        """Boolean mask (R, 1, T, T), true where a token may look: earlier or itself, same document."""
        same = self.document_RT[:, None, :, None] == self.document_RT[:, None, None, :]
        causal = torch.ones(same.shape[-2:], dtype=torch.bool).tril()
        return same & causal


@dataclass(frozen=True, slots=True)
class Rows:
    """Packed rows of one epoch."""

    id_RT: npt.NDArray[np.int32]
    label_RT: npt.NDArray[np.int32]
    position_RT: npt.NDArray[np.int32]
    document_RT: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.id_RT)

    def batch(self, start: int, count: int) -> Batch:
        """Rows `start … start + count`, as tensors; the caller keeps inside the epoch."""
        part = slice(start, start + count)
        arrays = (self.id_RT, self.label_RT, self.position_RT, self.document_RT)
        return Batch(*(torch.from_numpy(array[part].astype(np.int64)) for array in arrays))


def pack_rows(documents: Iterable[Document], *, row_tokens: int, pad_id: int) -> Rows:
    """Rows of `row_tokens`, in the documents' order but for those waiting for a row they fit in.

    A divisible document is cut where a row ends and goes on in the next one as a document of its own;
    others stay whole (cut only when longer than a row). So rows are full until divisible documents run out.
    """
    queue, waiting = deque(documents), deque[Document]()
    groups: list[list[Document]] = []
    while queue or waiting:
        row: list[Document] = []
        left = row_tokens
        while left > 1 and len(waiting) <= _WAITING_MAX:
            document = _first_fitting(waiting, left) or (queue.popleft() if queue else None)
            if document is None:
                break
            size = len(document.ids) if document.divisible else min(len(document.ids), row_tokens)
            if size > left and not document.divisible:
                waiting.append(document)
                continue
            if size > left:
                rest = Document((document.ids[0], *document.ids[left:]), divisible=True)
                queue.appendleft(rest)
                document, size = Document(document.ids[:left]), left
            row.append(document)
            left -= size
        if not row:
            row = [waiting.popleft()]
        groups.append(row)
    return _fill(groups, row_tokens, pad_id)


def _first_fitting(waiting: deque[Document], left: int) -> Document | None:
    """Take the document out of `waiting` that has waited longest among those that fit."""
    for place, document in enumerate(waiting):
        if len(document.ids) <= left:
            del waiting[place]
            return document
    return None


def _fill(groups: list[list[Document]], row_tokens: int, pad_id: int) -> Rows:
    shape = (len(groups), row_tokens)
    ids = np.full(shape, pad_id, dtype=np.int32)
    labels = np.full(shape, IGNORE, dtype=np.int32)
    positions = np.zeros(shape, dtype=np.int32)
    owners = np.full(shape, -1, dtype=np.int32)
    for row, documents in enumerate(groups):
        start = 0
        for number, document in enumerate(documents):
            tokens = np.asarray(document.ids[: row_tokens - start], dtype=np.int32)
            end = start + len(tokens)
            ids[row, start:end] = tokens
            learned_from = start + max(document.learn_from - 1, 0)
            labels[row, learned_from : end - 1] = ids[row, learned_from + 1 : end]
            positions[row, start:end] = np.arange(len(tokens))
            owners[row, start:end] = number
            start = end
    return Rows(ids, labels, positions, owners)
