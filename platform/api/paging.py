"""Pages of a list: ``?limit=&cursor=``, answered with ``next_cursor``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

from django.db.models import Model, QuerySet
from ninja import Query

LIMIT_MAX = 200
Limit = Annotated[int, Query(ge=1, le=LIMIT_MAX, description="How many at most.")]
Cursor = Annotated[
    str | None, Query(max_length=64, description="The next_cursor of the page before, to go on from there.")
]
Row = TypeVar("Row", bound=Model)
Item = TypeVar("Item")


def page_of(
    rows: QuerySet[Row], show: Callable[[Row], Item], *, limit: int, cursor: str | None
) -> tuple[Sequence[Item], str | None]:
    """The newest ``limit`` of ``rows`` older than ``cursor`` (an id), and the cursor of the next page."""
    ordered: QuerySet[Any] = rows.order_by("-pk")
    if cursor is not None:
        ordered = ordered.filter(pk__lt=cursor)
    found = list(ordered[: limit + 1])
    next_cursor = found[limit - 1].pk if len(found) > limit else None
    return [show(row) for row in found[:limit]], next_cursor
