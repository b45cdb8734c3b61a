"""Which tokens of a flat batch belong to which bank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from moe_ops.lora.bank import LoraBank


@dataclass(frozen=True, slots=True)
class LoraBatch:
    """The banks of a step. Those of `banks[i]` are the tokens `token_N[first_S[i]:first_S[i + 1]]`, and
    `bank_T` has the number of each token's bank, −1 where it has none; all are int32.
    """

    banks: tuple[LoraBank, ...]
    token_N: torch.Tensor
    first_S: torch.Tensor
    bank_T: torch.Tensor

    @classmethod
    def build(cls, bank_T: Sequence[LoraBank | None]) -> LoraBatch | None:
        """For tokens that use these banks; None when there are none."""
        tokens: dict[LoraBank, list[int]] = {}
        for token, bank in enumerate(bank_T):
            if bank is not None:
                tokens.setdefault(bank, []).append(token)
        if not tokens:
            return None
        number = {bank: index for index, bank in enumerate(tokens)}
        first = [0]
        for places in tokens.values():
            first.append(first[-1] + len(places))
        return cls(
            tuple(tokens),
            _int32([token for places in tokens.values() for token in places]),
            _int32(first),
            _int32([-1 if bank is None else number[bank] for bank in bank_T]),
        )

    def to(self, device: torch.device) -> LoraBatch:
        """The same tokens, named on `device`."""
        places = self.token_N.to(device), self.first_S.to(device), self.bank_T.to(device)
        return LoraBatch(self.banks, *places)

    def only(self, token: int) -> LoraBatch | None:
        """The batch of one token alone."""
        number = int(self.bank_T[token])
        return None if number < 0 else LoraBatch.build([self.banks[number]])

    def touches(self, stem: str) -> bool:
        """Whether any bank changes `stem` or a module within it."""
        return any(bank.touches(stem) for bank in self.banks)


def _int32(numbers: Sequence[int]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int32)
