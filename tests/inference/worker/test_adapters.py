"""Adapters over the worker's HTTP, with the real engine: loaded, used, listed, dropped, refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

MODULE = "base_model.model.model.layers.0.self_attn.o_proj"
BODY: dict[str, Any] = {"model": "tokenworks-test", "prompt": "def f(", "temperature": 0, "max_tokens": 12}


def folder_make(parent: Path, name: str, *, scale: float = 3.0, width: int = 64) -> None:
    folder = parent / name
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(len(name))
    tensors = {
        f"{MODULE}.lora_A.weight": torch.randn(2, width, generator=generator),
        f"{MODULE}.lora_B.weight": torch.randn(64, 2, generator=generator) * scale,
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2}))


@pytest.fixture
def adapters(real_worker: Any, tmp_path: Path) -> Any:
    """The worker, with a folder of adapters."""
    for name in ("poet", "clerk"):
        folder_make(tmp_path / "adapters", name)
    folder_make(tmp_path / "adapters", "foreign", width=63)
    real_worker.runtime.service.adapters_dir = tmp_path / "adapters"
    return real_worker


async def answer(worker: Any, request_id: str, **headers: str) -> Any:
    all_headers = {"x-request-id": request_id} | headers
    return await worker.client.post("/v1/completions", json=BODY, headers=all_headers)


async def test_an_adapter_is_loaded_used_and_dropped_while_serving(adapters: Any) -> None:
    plain = (await answer(adapters, "req_1")).json()["choices"][0]["text"]
    assert (await adapters.client.put("/adapters/poet")).status_code == 200
    assert (await adapters.client.get("/adapters")).json() == {"adapters": ["poet"]}
    changed = await answer(adapters, "req_2", **{"x-tokenworks-adapter": "poet"})
    assert changed.status_code == 200
    assert changed.json()["choices"][0]["text"] != plain
    assert (await answer(adapters, "req_3")).json()["choices"][0]["text"] == plain
    assert (await adapters.client.delete("/adapters/poet")).status_code == 200
    gone = await answer(adapters, "req_4", **{"x-tokenworks-adapter": "poet"})
    assert gone.status_code == 404
    assert gone.json()["error"]["code"] == "unknown_adapter"
    assert (await adapters.client.put("/adapters/clerk")).status_code == 200  # the place is free again


async def test_what_cannot_be_loaded_is_refused_and_changes_nothing(adapters: Any) -> None:
    assert (await adapters.client.put("/adapters/poet")).status_code == 200
    again = await adapters.client.put("/adapters/poet")
    assert again.status_code == 200
    full = await adapters.client.put("/adapters/clerk")
    assert full.status_code == 400
    assert "the most that are served" in full.json()["error"]["message"]
    foreign = await adapters.client.put("/adapters/foreign")
    assert foreign.status_code == 400
    assert "has shape" in foreign.json()["error"]["message"]
    for name, status in (("absent", 404), ("..", 404), ("%2e%2e", 400), ("UPPER", 400)):
        assert (await adapters.client.put(f"/adapters/{name}")).status_code == status
    assert (await adapters.client.delete("/adapters/clerk")).status_code == 404
    assert (await adapters.client.get("/adapters")).json() == {"adapters": ["poet"]}


async def test_only_the_bearer_changes_adapters(adapters: Any) -> None:
    for method in ("put", "delete"):
        call = getattr(adapters.client, method)
        assert (await call("/adapters/poet", headers={"authorization": "Bearer no"})).status_code == 401


async def test_a_worker_without_a_folder_says_so(real_worker: Any) -> None:
    refused = await real_worker.client.put("/adapters/poet")
    assert refused.status_code == 404
    assert "--adapters-dir" in refused.json()["error"]["message"]


async def test_an_unknown_profile_is_refused_before_anything_is_computed(real_worker: Any) -> None:
    refused = await answer(real_worker, "req_1", **{"x-tokenworks-routing": "rp_absent"})
    assert refused.status_code == 404
    assert refused.json()["error"]["code"] == "unknown_routing"
    assert (await answer(real_worker, "req_1")).status_code == 200


async def test_a_file_made_to_break_its_reader_ends_nothing(adapters: Any) -> None:
    folder = adapters.runtime.service.adapters_dir / "poet"
    (folder / "adapter_config.json").write_text("[" * 100_000)
    refused = await adapters.client.put("/adapters/poet")
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "adapter_refused")
    assert (await adapters.client.put("/adapters/clerk")).status_code == 200
    assert (await answer(adapters, "req_1")).status_code == 200
