from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from inference.adapters.files import AdapterError
from inference.adapters.store import AdapterStore

Modules = Mapping[str, tuple[int, int]]
WriteAdapter = Callable[..., Path]

OUT = "model.layers.0.self_attn.o_proj"


@pytest.fixture
def store(modules: Modules) -> AdapterStore:
    return AdapterStore(modules=modules, limit=2, rank_max=8)


def test_adapters_come_and_go(store: AdapterStore, write_adapter: WriteAdapter) -> None:
    one, two = (store.read(write_adapter([OUT], seed=seed)) for seed in (1, 2))
    store.add("one", one)
    store.add("one", one)
    store.add("two", two)
    assert store.names == ("one", "two")
    with pytest.raises(AdapterError, match="other weights"):
        store.add("one", two)
    with pytest.raises(AdapterError, match="2 adapters are loaded"):
        store.add("three", one)
    store.drop("one")
    with pytest.raises(AdapterError, match="no adapter one"):
        store.drop("one")
    store.add("three", one)


def test_a_dropped_adapter_stays_with_its_requests_and_leaves_with_the_last(
    store: AdapterStore, write_adapter: WriteAdapter
) -> None:
    adapter = store.read(write_adapter([OUT]))
    store.add("one", adapter)
    store.add("two", adapter)
    leases = [store.hold("one"), store.hold("one")]
    store.drop("one")
    with pytest.raises(AdapterError, match="no adapter one"):
        store.hold("one")
    assert leases[0].adapter is adapter
    leases[0].release()
    leases[0].release()
    with pytest.raises(AdapterError, match="2 adapters"):
        store.add("one", adapter)
    leases[1].release()
    store.add("one", adapter)
