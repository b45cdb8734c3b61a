"""The world of the console's tests, and browsers signed in to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from django.test import Client

if TYPE_CHECKING:
    from tests.console.world import World


@pytest.fixture
def world(transactional_db: None, fresh_redis_url: str, tmp_path: Path) -> World:
    """Everything committed, as the processes of the real system would find it."""
    from tests.console.world import world_make  # models need Django, which starts after this file is read

    return world_make(tmp_path)


@pytest.fixture
def owner_client(world: World) -> Client:
    """Signed in as the demo tenant's owner."""
    return world.client_of(world.owner)


@pytest.fixture
def admin_client(world: World) -> Client:
    """Signed in as a foundation admin without a tenant; takes the place of pytest-django's fixture."""
    return world.client_of(world.admin)
