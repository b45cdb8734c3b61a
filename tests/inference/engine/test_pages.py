"""The pool of pages against a plain model of it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine.pages import PagePool

KEYS = [bytes([number]) for number in range(6)]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.integers(1, 7),
    st.lists(
        st.tuples(st.sampled_from(["take", "share", "publish", "release", "spoil"]), st.integers(0, 50))
    ),
)
def test_every_page_is_used_kept_or_blank(total: int, actions: list[tuple[str, int]]) -> None:
    pool = PagePool(total)
    users: list[list[int]] = []
    content: dict[int, bytes] = {}  # what is in each page that was published and not taken anew since
    for action, number in actions:
        user = users[number % len(users)] if users else []
        if action == "take" and pool.free:
            pages = pool.take(number % pool.free + 1)
            users.append(pages)
            for page in pages:
                content.pop(page, None)
        elif action == "share" and (pages := pool.find([KEYS[number % len(KEYS)]])):
            assert content[pages[0]] == KEYS[number % len(KEYS)]
            pool.share(pages)
            users.append(pages)
        elif action == "publish" and user and user[0] not in content:
            key = KEYS[number % len(KEYS)]
            known = pool.find([key])
            pool.publish(user[0], key)
            if not known and pool.find([key]):
                content[user[0]] = key
        elif action == "release" and user:
            users.remove(user)
            pool.release(user)
        elif action == "spoil" and user:
            pool.spoil(user)
            for page in user:
                content.pop(page, None)
                assert pool.find(KEYS) == [] or page not in pool.find(KEYS)
        pool.check(users)
    for user in users:
        pool.release(user)
    pool.check([])
    unclean = pool.take_unclean()
    assert len(unclean) == len(set(unclean))
    assert pool.free == total


def test_the_longest_unused_page_gives_way_and_dependents_before_what_they_depend_on() -> None:
    pool = PagePool(4)
    first, second = pool.take(2), pool.take(2)
    for page, key in zip([*first, *second], KEYS, strict=False):
        pool.publish(page, key)
    pool.release(second)
    pool.release(first)
    assert pool.free == 4
    assert pool.take(1) == [second[1]]
    assert pool.find([KEYS[2]]) == [second[0]]
    pool.share([second[0]])  # used again: no longer the longest unused
    pool.release([second[0]])
    assert pool.take(2) == [first[1], first[0]]
    assert pool.find([KEYS[2]]) == [second[0]]


def test_a_blank_page_is_taken_before_a_kept_one() -> None:
    pool = PagePool(2)
    page = pool.take(1)
    pool.publish(page[0], KEYS[0])
    pool.release(page)
    assert pool.take(1) != page
    assert pool.find([KEYS[0]]) == page


def test_a_spoiled_page_is_not_free_before_it_was_named_for_cleaning() -> None:
    pool = PagePool(2)
    pages = pool.take(1)
    pool.publish(pages[0], KEYS[0])
    pool.share(pages)
    pool.spoil(pages)
    assert pool.find([KEYS[0]]) == []
    pool.release(pages)
    assert pool.take_unclean() == []  # somebody still has it
    pool.release(pages)
    assert pool.free == 1
    assert pool.in_use() == pages
    assert pool.take_unclean() == pages
    assert (pool.free, pool.take_unclean()) == (2, [])


def test_misuse_is_a_bug() -> None:
    pool = PagePool(3)
    taken = pool.take(2)
    with pytest.raises(RuntimeError, match="2 pages were taken while 1 are free"):
        pool.take(2)
    pool.release(taken)
    with pytest.raises(RuntimeError, match="returned twice"):
        pool.release(taken[:1])
    with pytest.raises(RuntimeError, match="blank and was shared"):
        pool.share(taken[:1])
    with pytest.raises(RuntimeError, match="can not be published"):
        pool.publish(taken[0], KEYS[0])


def test_the_check_finds_lost_pages_and_wrong_counts() -> None:
    pool = PagePool(3)
    taken = pool.take(2)
    pool.check([taken])
    with pytest.raises(RuntimeError, match="counts of users"):
        pool.check([taken[:1]])
    pool._blank.pop()
    with pytest.raises(RuntimeError, match="lost"):
        pool.check([taken])
