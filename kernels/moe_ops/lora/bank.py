"""Low-rank changes of one adapter, `x ↦ B (A x)` for each module, in one piece of memory.

Factors are packed as `moe_ops.linear` packs them, in bfloat16 where that is exactly what they are and in
float32 elsewhere, one after the other. What a layer needs to know of them is a table of their places, made
once for each layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from moe_ops.linear.packing import FORMATS, TILE, PackedMatrix, WeightFormat, pack_matrix, unpack_matrix
from moe_ops.lora.names import ExpertNames, Parts

_TILE_STEP = 64  # bytes
_NONE = [0] * 9
_SIDES = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class LowRank:
    """One module's change of weights: `x ↦ B (A x)`, a factor of scale being part of `b`."""

    a: PackedMatrix
    b: PackedMatrix

    @property
    def rank(self) -> int:
        """Numbers between the two factors."""
        return self.a.outputs


def pack_low_rank(a_RI: torch.Tensor, b_OR: torch.Tensor) -> LowRank:
    """Both factors with every number as it is, to float32. Raises `ValueError` when they do not fit."""
    if a_RI.dim() != 2 or b_OR.dim() != 2 or len(a_RI) != b_OR.shape[1]:
        raise ValueError(f"factors {tuple(a_RI.shape)} and {tuple(b_OR.shape)} do not fit each other")
    # activations are read as they lie: an odd number of them does not meet pairs of bfloat16
    a_format = _exact_format(a_RI) if a_RI.shape[1] % 2 == 0 else "float32"
    return LowRank(pack_matrix(a_RI, a_format), pack_matrix(b_OR, _exact_format(b_OR)))


class LoraBank:
    """The factors of one adapter's modules; those in `modules` are views of `data_X` (uint8)."""

    def __init__(self, modules: Mapping[str, LowRank]) -> None:
        factors = [factor for change in modules.values() for factor in (change.a, change.b)]
        self.data_X = torch.empty(sum(factor.data.nbytes for factor in factors), dtype=torch.uint8)
        self.modules: Mapping[str, LowRank] = self._moved(modules)
        self._stems = frozenset(stem for name in modules for stem in _stems(name))
        self._parts: dict[Parts, torch.Tensor] = {}
        self._experts: dict[ExpertNames, tuple[torch.Tensor, torch.Tensor]] = {}

    def touches(self, stem: str) -> bool:
        """Whether a module is `stem` or begins with it and a dot."""
        return stem in self._stems

    def parts_table(self, parts: Parts) -> torch.Tensor:
        """Where the changes of `parts` lie, int64 (parts, 9), as `csrc/lora_checks.h` reads it."""
        table = self._parts.get(parts)
        if table is None:
            table = self._parts[parts] = _table([self._row(name, column=column) for name, column in parts])
        return table

    def experts_table(
        self, names: ExpertNames, *, experts: int, width: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The memory and the places of the changes of gate, up and down of all `experts` of `width`: int64
        (3 · experts, 9).

        An expert that is a slice of its module's width has its slice of the factors, copied out where slices
        are not of whole tiles.
        """
        found = self._experts.get(names)
        if found is None:
            named = [names.module(expert) for expert in range(experts)]
            slices = [_Slice(f"{module}.{side}", part, width) for module, part in named for side in _SIDES]
            if width % TILE and any(one.part for one in slices):
                copies = LoraBank({str(one): one.copy(self.modules[one.module])
                                   for one in slices if one.module in self.modules})  # fmt: skip
                found = copies.data_X, _table([copies._row(str(one)) for one in slices])
            else:
                found = self.data_X, _table([self._row(one.module, cut=one) for one in slices])
            self._experts[names] = found
        return found

    def _moved(self, modules: Mapping[str, LowRank]) -> dict[str, LowRank]:
        """The same changes with their factors in `data_X`."""
        place = 0
        moved = {}
        for name, change in modules.items():
            factors = []
            for factor in (change.a, change.b):
                data = self.data_X[place : place + factor.data.nbytes].view(factor.data.dtype)
                data = data.view(factor.data.shape).copy_(factor.data)
                factors.append(replace(factor, data=data))
                place += factor.data.nbytes
            moved[name] = LowRank(*factors)
        return moved

    def _row(self, module: str, *, column: int = 0, cut: _Slice | None = None) -> list[int]:
        """One change, or a slice of it."""
        change = self.modules.get(module)
        if change is None:
            return _NONE
        a, b = change.a, change.b
        inputs, outputs, a_offset, b_offset = a.inputs, b.outputs, _offset(a), _offset(b)
        if cut is not None and cut.of_inputs:
            a_offset += cut.part * cut.width * _TILE_STEP // _together(a)
            inputs = cut.width
        elif cut is not None:
            b_offset += cut.part * (cut.width // TILE) * _tile_bytes(b)
            outputs = cut.width
        codes = FORMATS.index(a.format), FORMATS.index(b.format)
        return [change.rank, inputs, outputs, column, a_offset, _tile_bytes(a), codes[0], b_offset, codes[1]]


@dataclass(frozen=True, slots=True)
class _Slice:
    """Part `part` of the `width` that an expert has of a module: of outputs, and of down's inputs."""

    module: str
    part: int
    width: int

    @property
    def of_inputs(self) -> bool:
        return self.module.endswith(_SIDES[-1])

    def copy(self, change: LowRank) -> LowRank:
        a_RI, b_OR = unpack_matrix(change.a), unpack_matrix(change.b)
        mine = slice(self.part * self.width, (self.part + 1) * self.width)
        return pack_low_rank(a_RI[:, mine], b_OR) if self.of_inputs else pack_low_rank(a_RI, b_OR[mine])


def _exact_format(weight: torch.Tensor) -> WeightFormat:
    return "bfloat16" if torch.equal(weight.bfloat16().to(weight.dtype), weight) else "float32"


def _table(rows: list[list[int]]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int64)


def _stems(name: str) -> list[str]:
    words = name.split(".")
    return [".".join(words[:count]) for count in range(1, len(words) + 1)]


def _offset(factor: PackedMatrix) -> int:
    return int(factor.data.storage_offset()) * factor.data.element_size()


def _tile_bytes(factor: PackedMatrix) -> int:
    return factor.data[0].nbytes


def _together(factor: PackedMatrix) -> int:
    return 2 if factor.format == "bfloat16" else 1
