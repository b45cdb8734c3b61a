"""The prefix cache: full pages are found again by what they hold and all that precedes it.

A page's key is a hash of its tokens and of the key before it; the chain begins with what keeps requests
apart: salt, adapter and fixed-routing profile. Keys are 128 bits of BLAKE2b, because a collision would show
one tenant's text to another.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b

from inference.engine.pages import PagePool
from inference.engine.sequence import Sequence

_KEY_BYTES = 16


class PrefixCache:
    """Gives pages to sequences and takes them back, so that their contents can be found again."""

    def __init__(self, *, pages: int, page_size: int) -> None:
        self.pool = PagePool(pages)
        self._page_size = page_size
        self._coming: dict[bytes, Sequence] = {}  # pages about to be filled, and by whom

    def held_back(self, sequence: Sequence) -> bool:
        """Whether a running request is about to fill the next page that `sequence` needs. That request runs,
        so the wait ends: when the page is published, or when its writer gives up its pages.
        """
        if sequence.awaits is not None and sequence.awaits not in self._coming:
            sequence.awaits = None
        return sequence.awaits is not None

    def match(self, sequence: Sequence) -> list[int]:
        """The longest cached prefix of a waiting request, in pages. The last token is always computed anew.

        Sets `awaits` when the page after it is about to come.
        """
        if sequence.scoring or not sequence.may_share:
            return []
        usable = self._shared(sequence, len(sequence.tokens) - 1) // self._page_size
        self._extend_keys(sequence, usable)
        pages = self.pool.find(sequence.keys[:usable])
        if len(pages) < usable and sequence.keys[len(pages)] in self._coming:
            sequence.awaits = sequence.keys[len(pages)]
        return pages

    def begin(self, sequence: Sequence, found: list[int]) -> None:
        """Start a request on the pages found for it, and announce those it will fill while reading."""
        self.pool.share(found)
        sequence.pages.extend(found)
        sequence.published = len(found)
        sequence.computed = len(found) * self._page_size
        sequence.unseen = self.pool.missed(found) * self._page_size
        full = self._shared(sequence, len(sequence.tokens)) // self._page_size
        self._extend_keys(sequence, full)
        for key in sequence.keys[len(found) : full]:
            self._coming.setdefault(key, sequence)

    def grow(self, sequence: Sequence, tokens: int) -> None:
        """Take pages, which are free, until `tokens` tokens have their place."""
        need = self.pages_for(tokens) - len(sequence.pages)
        if need > 0:
            sequence.pages.extend(self.pool.take(need))

    def miss(self, sequence: Sequence, computed: int) -> None:
        """Note that the draft module has not read what was computed up to there, for all who find it."""
        sequence.unseen += computed - sequence.computed
        self.pool.miss(sequence.pages[sequence.computed // self._page_size : self.pages_for(computed)])

    def publish(self, sequence: Sequence) -> None:
        """Let others find the pages that became full."""
        full = self._shared(sequence, sequence.computed) // self._page_size
        if full <= sequence.published:
            return
        self._extend_keys(sequence, full)
        for place in range(sequence.published, full):
            self.pool.publish(sequence.pages[place], sequence.keys[place])
            self._withdraw(sequence, sequence.keys[place])
        sequence.published = full

    def release(self, sequence: Sequence, *, spoiled: bool = False) -> None:
        """Take a request's pages. What is `spoiled` must not be found again."""
        if spoiled:
            self.pool.spoil(sequence.pages)
        self.pool.release(sequence.pages)
        for key in sequence.keys[sequence.published :]:
            self._withdraw(sequence, key)
        sequence.pages = array("i")
        sequence.computed = sequence.published = 0

    def pages_for(self, tokens: int) -> int:
        return -(-tokens // self._page_size)

    def check(self, running: list[Sequence]) -> None:
        """Raise `RuntimeError` unless the books agree with what `running` requests hold."""
        self.pool.check([sequence.pages for sequence in running])
        for key, writer in self._coming.items():
            if writer not in running or key not in writer.keys[writer.published :]:
                raise RuntimeError("a page is announced that nobody is about to fill")

    def _shared(self, sequence: Sequence, tokens: int) -> int:
        """How many of the first `tokens` may come from others and be found by them: what was generated under
        fixed routing is not what reading it as a prompt gives, so it is kept to its request.
        """
        return tokens if sequence.routing is None else min(tokens, sequence.prompt_tokens)

    def _withdraw(self, sequence: Sequence, key: bytes) -> None:
        if self._coming.get(key) is sequence:
            del self._coming[key]

    def _extend_keys(self, sequence: Sequence, count: int) -> None:
        """Keys of the first `count` pages, each computed once in a request's life."""
        keys, size = sequence.keys, self._page_size
        while len(keys) < count:
            parent = keys[-1] if keys else _root(sequence)
            first = len(keys) * size
            content = array("I", sequence.tokens[first : first + size]).tobytes()
            keys.append(blake2b(parent + content, digest_size=_KEY_BYTES).digest())


def _root(sequence: Sequence) -> bytes:
    """Adapters count by what they are too: a name may be given to another."""
    request = sequence.request
    digest = None if sequence.lease is None else sequence.lease.adapter.digest
    scope = repr((request.salt, request.adapter, digest, request.routing))
    return blake2b(scope.encode(), digest_size=_KEY_BYTES, person=b"scope").digest()
