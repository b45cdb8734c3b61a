"""Two hundred streams at once over three partners' workers."""

from __future__ import annotations

from collections import Counter

from stack.running import Stack
from tests.flows.books import Books
from tests.flows.load import ask_many

STREAMS = 200


async def test_two_hundred_streams_end_and_every_token_is_billed_once(stack: Stack, books: Books) -> None:
    books.wait_settled()
    before = books.usage()

    endings = await ask_many(stack, range(STREAMS), max_tokens=24)

    assert Counter(ending.kind for ending in endings) == {"done": STREAMS}
    books.wait_settled()
    books.check()
    billed = books.usage().keys() - before.keys()
    assert billed == {ending.request_id for ending in endings}
    served = books.journals()
    by_worker = Counter(served[request_id].worker for request_id in billed)
    assert set(by_worker) == set(stack.workers()), "each partner has its share"
