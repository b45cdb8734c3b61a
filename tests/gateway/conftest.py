"""One world for most gateway tests; those that kill parts of it make their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stack.services import EmbeddedValkey
from tests.gateway.world import World


@pytest.fixture(scope="session")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Valkey, gateway, three workers."""
    folder = tmp_path_factory.mktemp("gateway")
    valkey = EmbeddedValkey(folder / "valkey").start()
    world = World(valkey.url, folder).start()
    yield world
    world.close()
    valkey.remove()


@pytest.fixture
def world(shared_world: World) -> Iterator[World]:
    """The shared world with all workers well."""
    shared_world.modes("ok", "ok", "ok")
    yield shared_world
    shared_world.modes("ok", "ok", "ok")
    for stub in shared_world.workers:
        stub.write_bytes, stub.chunk_s = 0, 0.0


OwnWorld = Callable[[], tuple[World, EmbeddedValkey]]


@pytest.fixture
def own_world(tmp_path: Path) -> Iterator[OwnWorld]:
    """Makes a world that the test may break."""
    with ExitStack() as stack:

        def make() -> tuple[World, EmbeddedValkey]:
            valkey = EmbeddedValkey(tmp_path / "valkey").start()
            stack.callback(valkey.remove)
            world = World(valkey.url, tmp_path).start()
            stack.callback(world.close)
            return world, valkey

        yield make
