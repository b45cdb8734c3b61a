"""The adapters that are loaded now. They come and go between steps; requests in flight hold theirs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inference.adapters.files import Adapter, AdapterError, adapter_read


@dataclass(slots=True)
class _Loaded:
    adapter: Adapter
    users: int = 0
    dropped: bool = False


class AdapterStore:
    """Names to adapters, at most `limit` in memory.

    A dropped adapter takes no new requests and leaves memory with its last user.
    """

    def __init__(
        self,
        *,
        modules: Mapping[str, tuple[int, int]],
        limit: int,
        rank_max: int,
    ) -> None:
        self._modules = modules
        self._limit = limit
        self._rank_max = rank_max
        self._loaded: dict[str, _Loaded] = {}
        self._leaving: list[_Loaded] = []

    @property
    def names(self) -> tuple[str, ...]:
        """Adapters that take requests, in the order in which they were loaded."""
        return tuple(self._loaded)

    def read(self, folder: Path) -> Adapter:
        """The adapter in `folder`, checked against the model; safe in any thread. Raises `AdapterError`."""
        return adapter_read(folder, modules=self._modules, rank_max=self._rank_max)

    def add(self, name: str, adapter: Adapter) -> None:
        """Serve `adapter` as `name`; the same again is no change.

        Raises `AdapterError` when the name is taken by another adapter or no place is free.
        """
        present = self._loaded.get(name)
        if present is not None:
            if present.adapter.digest == adapter.digest:
                return
            raise AdapterError(f"{name} is loaded with other weights; drop it first")
        if len(self._loaded) + len(self._leaving) >= self._limit:
            raise AdapterError(f"{self._limit} adapters are loaded, the most that are served; drop one first")
        self._loaded[name] = _Loaded(adapter)

    def drop(self, name: str) -> None:
        """Take no more requests for `name`. Raises `AdapterError` when it is not loaded."""
        loaded = self._loaded.pop(name, None)
        if loaded is None:
            raise AdapterError(f"no adapter {name} is loaded")
        loaded.dropped = True
        if loaded.users:
            self._leaving.append(loaded)

    def hold(self, name: str) -> Lease:
        """Use `name` until the lease is released. Raises `AdapterError` when it is not loaded."""
        loaded = self._loaded.get(name)
        if loaded is None:
            raise AdapterError(f"no adapter {name} is loaded")
        loaded.users += 1
        return Lease(self, loaded)

    def release(self, loaded: _Loaded) -> None:
        """One user less; called by leases."""
        loaded.users -= 1
        if loaded.dropped and not loaded.users:
            self._leaving.remove(loaded)


class Lease:
    """One request's hold on its adapter. Releasing it twice is no error."""

    __slots__ = ("_loaded", "_store", "adapter")

    def __init__(self, store: AdapterStore, loaded: _Loaded) -> None:
        self._store: AdapterStore | None = store
        self._loaded = loaded
        self.adapter = loaded.adapter

    def release(self) -> None:
        """The request has ended."""
        if self._store is not None:
            store, self._store = self._store, None
            store.release(self._loaded)
