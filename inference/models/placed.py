"""A model on an accelerator, for an engine that stays on the host: batches go there, logits come back.

Steps that only decode are recorded where the device can record: one graph for each number of rows, up to
`GRAPH_CONTEXT` positions of context. The rows that fill a graph up are like its first one, but write to
a page that is nobody's.
"""

from __future__ import annotations

import torch

from inference.layers.batch import FlatBatch
from inference.layers.whole import is_plain
from inference.models.around import ModelAround
from inference.models.interface import CausalModel, DraftModule, Forward
from moe_ops.accelerator.graphs import Capture, DecodeGraphs, Inputs, Outputs, StepInput
from moe_ops.latent_attention import SingleRows

GRAPH_CONTEXT = 4096  # attention's place for partial results grows with it, and beyond it is most of a step
GRAPH_ROWS = 256


class PlacedModel(ModelAround):
    """`model` lies on `device`; `capture` records steps of up to `rows` rows (None: none are recorded)."""

    def __init__(
        self,
        model: CausalModel,
        device: torch.device,
        *,
        capture: Capture | None = None,
        rows: int = GRAPH_ROWS,
    ) -> None:
        super().__init__(model, None if model.mtp is None else _PlacedDraft(model.mtp, device))
        self._device = device
        self._capture = capture
        self._rows = min(rows, GRAPH_ROWS)
        self._landing = _Landing()
        self._recorded: tuple[torch.Tensor, DecodeGraphs] | None = None

    def new_cache(self, *, pages: int, page_size: int) -> torch.Tensor:
        """As the model's. Steps are recorded for the latest one, now."""
        if self._capture is None:
            return super().new_cache(pages=pages, page_size=page_size)
        whole = super().new_cache(pages=pages + 1, page_size=page_size)
        graphs = self._graphs(whole, self._capture)
        with torch.inference_mode():
            graphs.capture_all()
        cache = whole[:, :pages]
        self._recorded = cache, graphs
        return cache

    def forward(self, batch: FlatBatch, cache: torch.Tensor) -> Forward:
        """As the model's, with logits on the host; all is valid until the next call."""
        if (graphs := self._graphs_for(batch, cache)) is not None and batch.short is not None:
            rows = batch.short
            logits_SV, hidden_TD = graphs.run(
                {
                    "token": batch.token_T,
                    "turn": batch.turn_TR,
                    "slot": batch.slot_T,
                    "pages": rows.pages_BP,
                    "end": rows.end_B,
                }
            )
        else:
            logits_SV, hidden_TD = self._model.forward(batch.to(self._device), cache)
        return Forward(self._landing.bring(logits_SV), hidden_TD)

    def _graphs_for(self, batch: FlatBatch, cache: torch.Tensor) -> DecodeGraphs | None:
        """The graphs of `cache`, if the batch is one of theirs."""
        rows = batch.short
        if self._recorded is None or cache is not self._recorded[0] or rows is None or not is_plain(batch):
            return None
        tokens = len(batch.token_T)
        single = rows.most == 1 and tokens <= self._rows and len(batch.last_S) == tokens
        short = rows.pages_BP.shape[1] * cache.shape[2] <= GRAPH_CONTEXT
        return self._recorded[1] if single and short else None

    def _graphs(self, whole: torch.Tensor, capture: Capture) -> DecodeGraphs:
        spare, page_size = whole.shape[1] - 1, whole.shape[2]
        columns = max(GRAPH_CONTEXT // page_size, 1)
        tokens, positions = self.config.vocab_size, columns * page_size
        inputs = {
            "token": StepInput((), torch.int64, repeat=True, warm=lambda one: one.random_(tokens)),
            "turn": StepInput((self.turn_XR.shape[1],), self.turn_XR.dtype, repeat=True),
            "slot": StepInput((), torch.int64, padding=spare * page_size),
            "pages": StepInput(
                (columns,), torch.int32, spare, repeat=True, warm=lambda one: one.random_(spare + 1)
            ),
            "end": StepInput((), torch.int32, repeat=True, warm=lambda one: one.fill_(positions)),
        }
        logits_SV = torch.empty(
            self._rows, tokens, device=self._device
        )  # of all graphs: one is read at a time

        def step(given: Inputs) -> Outputs:
            rows = len(given["token"])
            batch = FlatBatch(
                token_T=given["token"],
                turn_TR=given["turn"],
                slot_T=given["slot"],
                short=SingleRows.of(given["pages"], given["end"]),
                long=(),
                last_S=torch.arange(rows, device=self._device),
            )
            found = self._model.forward(batch, whole)
            return logits_SV[:rows].copy_(found.logits_SV), found.hidden_TD

        return DecodeGraphs(step, inputs=inputs, largest=self._rows, device=self._device, capture=capture)


class _Landing:
    """Where logits arrive. From a GPU they come to memory that is kept and pinned: new memory for the whole
    vocabulary, copied to in small parts, can take as long as a step. Unmeasured.
    """

    def __init__(self) -> None:
        self._pinned = torch.empty(0, 0)

    def bring(self, logits_SV: torch.Tensor) -> torch.Tensor:
        """`logits_SV` on the host, valid until the next call."""
        rows, vocabulary = logits_SV.shape
        if logits_SV.device.type != "cuda" or rows > GRAPH_ROWS:
            return logits_SV.cpu()
        if not self._pinned.numel():
            self._pinned = torch.empty(GRAPH_ROWS, vocabulary, pin_memory=True)
        arrived_SV = self._pinned[:rows].copy_(logits_SV, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return arrived_SV


class _PlacedDraft:
    def __init__(self, module: DraftModule, device: torch.device) -> None:
        self._module = module
        self._device = device
        self._landing = _Landing()

    def forward(
        self, batch: FlatBatch, hidden_TD: torch.Tensor, next_token_T: torch.Tensor, cache: torch.Tensor
    ) -> torch.Tensor:
        """As the module's, with logits on the host; `hidden_TD` come from the device."""
        next_token_T = next_token_T.to(self._device)
        logits_SV = self._module.forward(batch.to(self._device), hidden_TD, next_token_T, cache)
        return self._landing.bring(logits_SV)
