"""A consortium with two tenants that must know nothing of each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.api.world import World


@pytest.fixture
def world(transactional_db: None, fresh_redis_url: str, tmp_path: Path) -> World:
    """Everything committed, as the processes of the real system would find it; Valkey empty."""
    from tests.api.world import world_make  # models can be imported only once Django is set up

    return world_make(tmp_path)
