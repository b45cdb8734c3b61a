"""A model on a device that is not there: torch's meta device, which knows shapes and types and computes
nothing. Kernels are asked for and not run. What mixes devices or waits for the device is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import Autotuner, JITFunction

from inference.engine.assembly import assemble
from inference.engine.packing import arrange
from inference.engine.sequence import Sequence
from inference.engine.step import Draw, Row
from inference.engine.types import GenerationRequest, SamplingParams
from inference.layers.batch import FlatBatch
from inference.layers.gpu import TRITON
from inference.layers.placement import DeviceError, Placement
from inference.models.around import ModelAround
from inference.models.loader import load_model
from inference.models.placed import GRAPH_CONTEXT, PlacedModel
from inference.models.random_checkpoint import TINY_V3, random_checkpoint_write
from moe_ops.accelerator.graphs import rerun

AWAY = torch.device("meta")
PAGE = 4
KERNELS = {
    *(f"grouped_mlp.triton.{name}" for name in ("_up", "_down", "_sum")),
    *(f"latent_attention.triton.{name}" for name in ("_attend", "_merge")),
    "latent_attention.triton_expand._attend",
    *(f"latent_store.triton.{name}" for name in ("_store", "_turn")),
    "rms_norm.triton._norm",
    "router.triton._route",
}
QWEN: dict[str, object] = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 264,
    "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
    "max_position_embeddings": 256, "norm_topk_prob": True, "rms_norm_eps": 1e-6,
}  # fmt: skip
GREEDY = Draw(SamplingParams(max_tokens=1, temperature=0), seed=0, index=0)
aten = torch.ops.aten


class Border(TorchDispatchMode):
    """Lets tensors pass between host and device by copies only, and counts those to the device."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        devices = {one.device for one in _tensors([*args, *kwargs.values()]) if one.dim()}
        if func in (aten.copy_.default, aten._to_copy.default):
            target = args[0].device if func == aten.copy_.default else kwargs.get("device", args[0].device)
            if target.type == "cpu" and AWAY in devices:
                return args[0] if func == aten.copy_.default else torch.zeros(args[0].shape)
            self.sent += target == AWAY and devices != {AWAY}
        else:
            assert len(devices) < 2, func
        return func(*args, **kwargs)


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


@dataclass
class Launches:
    """Kernels that were asked for, and with what."""

    names: list[str] = field(default_factory=list)
    launches: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Launches:
    """What was asked for, all with tensors on the device alone and a grid of programs."""
    made = Launches()

    def run(self: Any, *args: Any, **kwargs: Any) -> None:
        body = getattr(self, "base_fn", self.fn)
        name = f"{body.__module__.removeprefix('moe_ops.')}.{body.__name__}"
        assert {tensor.device for tensor in _tensors([*args, *kwargs.values()])} == {AWAY}, name
        grid, configs = kwargs["grid"], getattr(self, "configs", None)
        assert all(size > 0 for size in (grid(configs[0].kwargs) if callable(grid) else grid)), name
        made.names.append(name)
        made.launches.append((self, args, kwargs))

    monkeypatch.setattr(JITFunction, "run", run)
    monkeypatch.setattr(Autotuner, "run", run)
    monkeypatch.setattr(torch, "inference_mode", torch.no_grad)  # that takes composed operations apart
    return made


_TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.int32: "i32", torch.int64: "i64"}
_TARGET = GPUTarget("cuda", 90, 32)


def compile_launched(kernel: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Make the program of a launch for an H100, as Triton would there with the first of its tile sizes."""
    config = kernel.configs[0] if isinstance(kernel, Autotuner) else triton.Config({})
    function = kernel.fn if isinstance(kernel, Autotuner) else kernel
    given = {**dict(zip(function.arg_names, args, strict=False)), **kwargs, **config.kwargs}
    constants = {
        one.name: given[one.name] for one in function.params if one.is_constexpr or given[one.name] is None
    }
    signature = {one.name: _type(one.name, given, constants) for one in function.params}
    options = {"num_warps": kwargs.get("num_warps", config.num_warps), "num_stages": config.num_stages}
    made = triton.compile(ASTSource(function, signature, constants), target=_TARGET, options=options)
    assert made.asm["cubin"]


def _type(name: str, given: dict[str, Any], constants: dict[str, Any]) -> str:
    value = given[name]
    if name in constants:
        return "constexpr"
    if isinstance(value, torch.Tensor):
        return f"*{_TYPES[value.dtype]}"
    return "fp32" if isinstance(value, float) else "i32"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("placed")
    random_checkpoint_write(path=path, config={**TINY_V3, "num_nextn_predict_layers": 1})
    return path


@pytest.fixture(params=["bfloat16", "float32"])
def model(request: pytest.FixtureRequest, folder: Path) -> PlacedModel:
    place = Placement(AWAY, TRITON, rerun)
    model = load_model(folder, weights=request.param, mtp=True, place=place, rows=6)
    assert isinstance(model, PlacedModel)
    return model


def _batch(model: PlacedModel, starts: list[int], counts: list[int], page: int = PAGE) -> FlatBatch:
    rows = []
    for number, (start, count) in enumerate(zip(starts, counts, strict=True)):
        request = GenerationRequest(f"r{number}", (5,) * (start + count), SamplingParams(max_tokens=1))
        pages = tuple(range(-(-(start + count) // page)))
        rows.append(Row(Sequence(request, number, 0), (5,) * count, start, pages, draws=(GREEDY,)))
    return assemble(arrange(rows), page_size=page, turn_XR=model.turn_XR)


def test_steps_stay_on_the_device(model: PlacedModel, launched: Launches) -> None:
    with torch.no_grad(), Border():
        cache = ModelAround.new_cache(model, pages=120, page_size=PAGE)
        assert cache.device == AWAY
        for starts, counts in (([0], [1]), ([0, 7], [3, 1]), ([0, 9, 100], [20, 2, 40])):
            batch = _batch(model, starts, counts)
            logits_SV, hidden_TD = model.forward(batch, cache)
            assert (logits_SV.device.type, logits_SV.dtype) == ("cpu", torch.float32)
            assert (hidden_TD.device, hidden_TD.dtype) == (AWAY, model.dtype)
            assert model.mtp is not None
            following_T = torch.zeros(len(batch.token_T), dtype=torch.int64)
            assert model.mtp.forward(batch, hidden_TD, following_T, cache).device.type == "cpu"
    assert set(launched.names) == KERNELS


def at_once(work: Callable[[], None]) -> Callable[[], None]:
    """Does what is to be recorded when it is recorded, as CUDA does."""
    work()
    return work


@pytest.mark.parametrize("config", [TINY_V3, QWEN], ids=["latent", "grouped queries"])
def test_an_engine_records_what_can_be_recorded(
    tmp_path: Path, launched: Launches, config: dict[str, object]
) -> None:
    """What is looked up on the device, as grouped queries do, is an error here."""
    random_checkpoint_write(path=tmp_path, config=config)
    model = load_model(tmp_path, place=Placement(AWAY, TRITON, at_once), rows=3)
    with Border():
        cache = model.new_cache(pages=20, page_size=PAGE)
    assert cache.device == AWAY
    assert bool(launched.names) == (config is TINY_V3)


@pytest.mark.timeout(240)
def test_all_programs_of_a_model_are_made_for_an_h100(
    model: PlacedModel, launched: Launches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    with torch.no_grad():
        cache = ModelAround.new_cache(model, pages=120, page_size=PAGE)
        for starts, counts in (([0, 7], [3, 1]), ([0], [40])):
            with Border():
                model.forward(_batch(model, starts, counts), cache)
    first = dict(zip(reversed(launched.names), reversed(launched.launches), strict=True))
    assert set(first) == KERNELS
    for kernel, args, kwargs in first.values():
        compile_launched(kernel, args, kwargs)


def test_a_recorded_step_takes_nothing_from_the_host(model: PlacedModel, launched: Launches) -> None:
    batch = _batch(model, [6, 9, 30], [1, 1, 1])
    with torch.no_grad(), Border() as border:
        cache = model.new_cache(pages=120, page_size=PAGE)
        for _ in range(2):  # at first matrices go to the device
            border.sent = 0
            launched.names.clear()
            model.forward(batch, cache)
        assert border.sent == 5  # the graph's inputs
        assert len(launched.names) > 10
        model.forward(batch, cache.clone())  # of another cache nothing is recorded
        assert border.sent > 10


@pytest.mark.parametrize(
    ("starts", "counts"),
    [([4, 5, 6, 7, 8, 9, 10], [1] * 7), ([3, 4], [1, 2]), ([0], [20]), ([GRAPH_CONTEXT], [1])],
    ids=["more rows than were recorded", "drafts", "a prompt", "a long context"],
)
def test_other_steps_are_not_recorded(
    folder: Path, launched: Launches, monkeypatch: pytest.MonkeyPatch, starts: list[int], counts: list[int]
) -> None:
    model = load_model(folder, place=Placement(AWAY, TRITON, rerun), rows=6)
    assert isinstance(model, PlacedModel)
    model.turn_XR = model.turn_XR.repeat(20, 1)
    with torch.no_grad(), Border():
        cache = model.new_cache(pages=70, page_size=64)
        monkeypatch.setattr("moe_ops.accelerator.graphs.DecodeGraphs.run", lambda *_: pytest.fail("recorded"))
        assert model.forward(_batch(model, starts, counts, page=64), cache).logits_SV.device.type == "cpu"


def test_integer_weights_are_for_the_cpu(folder: Path) -> None:
    with pytest.raises(DeviceError, match="int8 weights need device cpu"):
        load_model(folder, weights="int8", place=Placement(AWAY, TRITON))
