"""Cache pages: who uses them, which of them hold something worth keeping, and who gives way. Pure Python.

A page is in use (by one request or several), or kept (nobody uses it, but its content has a key), or blank.
Kept pages count as free: the longest unused is taken when no blank one is left.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable
from collections.abc import Sequence as Items


class PagePool:
    """Page numbers 0 … `total` − 1 with counts of users. Misuse is a bug and raises `RuntimeError`."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._blank = list(range(total - 1, -1, -1))
        self._kept: OrderedDict[int, None] = OrderedDict()  # longest unused first
        self._uses = [0] * total
        self._key_of: list[bytes | None] = [None] * total
        self._page_of: dict[bytes, int] = {}
        self._spoiled: set[int] = set()  # in use
        self._missed: set[int] = set()  # the draft module has not read all of their content
        self._unclean: list[int] = []  # spoiled and unused: neither blank nor free

    @property
    def free(self) -> int:
        """How many pages can be taken now."""
        return len(self._blank) + len(self._kept)

    def take(self, count: int) -> list[int]:
        """`count` pages for one user; the caller has checked that so many are free."""
        if not 0 <= count <= self.free:
            raise RuntimeError(f"{count} pages were taken while {self.free} are free")
        pages = [self._blank.pop() if self._blank else self._evict() for _ in range(count)]
        for page in pages:
            self._uses[page] = 1
        self._missed.difference_update(pages)
        return pages

    def miss(self, pages: Iterable[int]) -> None:
        """The draft module does not read what is written to these pages."""
        self._missed.update(pages)

    def missed(self, pages: Iterable[int]) -> int:
        """How many of these pages it has not read whole."""
        return sum(page in self._missed for page in pages)

    def find(self, keys: Iterable[bytes]) -> list[int]:
        """The pages of the leading keys that are there."""
        pages: list[int] = []
        for key in keys:
            page = self._page_of.get(key)
            if page is None:
                break
            pages.append(page)
        return pages

    def idle(self, pages: Items[int]) -> int:
        """How many of these pages count as free."""
        return sum(not self._uses[page] for page in pages)

    def share(self, pages: Items[int]) -> None:
        """One more user for each of some pages that were found."""
        for page in pages:
            if not self._uses[page]:
                if page not in self._kept:
                    raise RuntimeError(f"page {page} is blank and was shared")
                del self._kept[page]
            self._uses[page] += 1

    def publish(self, page: int, key: bytes) -> None:
        """Let a page that is full be found. Where another has the key already, it stays the one found."""
        if not self._uses[page] or self._key_of[page] is not None:
            raise RuntimeError(f"page {page} can not be published")
        if key not in self._page_of and page not in self._spoiled:
            self._page_of[key] = page
            self._key_of[page] = key

    def release(self, pages: Items[int]) -> None:
        """One user less for each page, which are given in order of their content: what depends on more is
        given up first.
        """
        for page in reversed(pages):
            if not self._uses[page]:
                raise RuntimeError(f"page {page} was returned twice")
            self._uses[page] -= 1
            if not self._uses[page]:
                self._put_back(page)

    def spoil(self, pages: Iterable[int]) -> None:
        """Forget the content of pages in use, which may not be finite; see `take_unclean`."""
        for page in pages:
            self._forget(page)
            self._spoiled.add(page)

    def take_unclean(self) -> list[int]:
        """Spoiled pages that nobody uses any more; they are free now, and the caller zeroes them at once."""
        pages, self._unclean = self._unclean, []
        self._blank += pages
        return pages

    def in_use(self) -> list[int]:
        """All pages that have users or are unclean."""
        return [*(page for page, count in enumerate(self._uses) if count), *self._unclean]

    def check(self, held: Iterable[Items[int]]) -> None:
        """Raise `RuntimeError` unless all books agree with the pages that the users hold."""
        uses = Counter(page for pages in held for page in pages)
        if any(uses[page] != count for page, count in enumerate(self._uses)):
            raise RuntimeError("the counts of users are wrong")
        unused = [*self._blank, *self._kept, *self._unclean]
        if sorted([*unused, *uses]) != list(range(self.total)):
            raise RuntimeError("pages are lost, or both used and free")
        keyed = {key: page for page, key in enumerate(self._key_of) if key is not None}
        if keyed != self._page_of:
            raise RuntimeError("keys and pages do not match")
        if any(self._key_of[page] is None for page in self._kept) or any(
            self._key_of[page] is not None for page in self._blank
        ):
            raise RuntimeError("a blank page has a key, or a kept one has none")

    def _put_back(self, page: int) -> None:
        if page in self._spoiled:
            self._spoiled.remove(page)
            self._unclean.append(page)
        elif self._key_of[page] is None:
            self._blank.append(page)
        else:
            self._kept[page] = None

    def _evict(self) -> int:
        page, _ = self._kept.popitem(last=False)
        self._forget(page)
        return page

    def _forget(self, page: int) -> None:
        key = self._key_of[page]
        if key is not None:
            del self._page_of[key]
            self._key_of[page] = None
