"""The free list of cache pages. Pure Python, no device."""

from __future__ import annotations


class PageAllocator:
    """Hands out page numbers 0 … `total` − 1; each belongs to at most one holder at a time."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._free = list(range(total - 1, -1, -1))
        self._taken = bytearray(total)

    @property
    def free(self) -> int:
        """How many pages can be taken now."""
        return len(self._free)

    def take(self, count: int) -> list[int]:
        """`count` pages; the caller has checked that so many are free."""
        if not 0 <= count <= len(self._free):
            raise RuntimeError(f"{count} pages were taken while {len(self._free)} are free")
        if not count:
            return []
        pages = self._free[-count:]
        del self._free[-count:]
        for page in pages:
            self._taken[page] = 1
        return pages

    def give_back(self, pages: list[int]) -> None:
        """Return pages that were taken. Returning one twice is a bug and raises `RuntimeError`."""
        for page in pages:
            if not self._taken[page]:
                raise RuntimeError(f"page {page} was returned twice")
            self._taken[page] = 0
        self._free.extend(reversed(pages))
