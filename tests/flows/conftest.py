"""What flows read and the client they use; the running ``stack`` is shared by all end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import DefaultHttpxClient, OpenAI

from stack.running import Stack
from tests.flows.books import Books


@pytest.fixture
def books(stack: Stack) -> Iterator[Books]:
    """What the stack's ledger, Redis and journals say."""
    with Books(stack) as opened:
        yield opened


@pytest.fixture
def client(stack: Stack) -> Iterator[OpenAI]:
    """The OpenAI SDK as a startup uses it, without retries so that every answer is seen."""
    with OpenAI(
        base_url=stack.base_url,
        api_key=stack.api_key,
        max_retries=0,
        timeout=60.0,
        http_client=DefaultHttpxClient(trust_env=False, timeout=60.0),
    ) as sdk:
        yield sdk
