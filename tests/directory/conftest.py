"""A consortium in PostgreSQL and an empty Valkey."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import redis

if TYPE_CHECKING:
    from tests.directory.consortium import Consortium


@pytest.fixture
def consortium(transactional_db: None, fresh_redis_url: str) -> Iterator[Consortium]:
    """See ``Consortium``."""
    from tests.directory.consortium import consortium_make  # models exist only now

    with redis.Redis.from_url(fresh_redis_url) as client:
        yield consortium_make(client)
