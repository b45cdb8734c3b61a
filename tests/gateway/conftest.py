"""One world for most gateway tests; those that kill parts of it make their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from stack.services import EmbeddedValkey
from tests.gateway.world import World


def world_open(stack: ExitStack, folder: Path) -> tuple[World, EmbeddedValkey]:
    """A running world that ``stack`` ends, whatever of it had started."""
    valkey = EmbeddedValkey(folder / "valkey")
    stack.callback(valkey.remove)
    valkey.start()
    world = World(valkey.url, folder)
    stack.callback(world.close)
    return world.start(), valkey


@pytest.fixture(scope="session")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Valkey, gateway, three workers."""
    folder = tmp_path_factory.mktemp("gateway")
    with ExitStack() as stack:
        yield world_open(stack, folder)[0]


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
            return world_open(stack, tmp_path)

        yield make
