from __future__ import annotations

import torch

from inference.routing.observer import LayerChoice
from inference.routing.touched import TouchedExperts
from moe_ops.grouped_mlp import pack_experts


def test_one_step_in_so_many_is_counted_each_kind_apart_and_draft_modules_not_at_all() -> None:
    touched = TouchedExperts(2, every=2)
    stack = pack_experts(torch.zeros(4, 8, 4), torch.zeros(4, 4, 4), "float32")
    x_TD, weights_TK = torch.zeros(3, 4), torch.zeros(3, 2)
    for step in range(4):
        observer = touched.observer(fixed=step == 3)
        assert (observer is None) == (step % 2 == 0)
        if observer is not None:
            observer.see(LayerChoice(0, x_TD, weights_TK, torch.tensor([[0, 1], [1, 0], [3, 1]]), stack))
            observer.see(LayerChoice(1, x_TD, weights_TK, torch.tensor([[0, 1], [1, 0], [0, 1]]), stack))
            observer.see(LayerChoice(2, x_TD, weights_TK, torch.tensor([[0, 1], [2, 3], [0, 1]]), stack))
    for kind in (touched.dynamic, touched.fixed):
        for _ in range(2):  # what was seen is counted once
            kind.count()
        assert (kind.layers, kind.experts) == (2, 5)
