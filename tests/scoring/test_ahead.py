"""The next item is in the making while one is used; order, errors and ends are those of the iterator itself."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilrank.scoring.ahead import ahead


@given(st.lists(st.none() | st.integers(), max_size=20))
def test_the_items_are_the_same_in_the_same_order(items: list[int | None]) -> None:
    assert list(ahead(items)) == items


def test_the_next_item_is_made_while_one_is_used_and_no_more_than_one() -> None:
    made = [threading.Event() for _ in range(4)]

    def making() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    items = ahead(making())
    assert next(items) == 0
    assert made[1].wait(10)
    assert not made[2].wait(0.05)
    assert next(items) == 1
    assert made[2].wait(10)
    assert list(items) == [2, 3]


def test_items_are_made_in_one_other_thread() -> None:
    threads = list(ahead(threading.current_thread() for _ in range(5)))
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()


def test_an_error_comes_in_its_turn_and_as_itself() -> None:
    error = ValueError("the third")

    def making() -> Iterator[int]:
        yield from (1, 2)
        raise error

    items = ahead(making())
    assert [next(items), next(items)] == [1, 2]
    with pytest.raises(ValueError, match="the third") as raised:
        next(items)
    assert raised.value is error


def test_a_consumer_that_stops_leaves_no_thread() -> None:
    before = threading.active_count()
    for item in ahead(range(10)):
        if item == 3:
            break
    assert threading.active_count() == before
