"""One item ahead: an iterator that works in a thread of its own while its consumer is busy with the item before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


def ahead(items: Iterable[Item]) -> Iterator[Item]:
    """The same items in the same order, the next one in the making while one is used. Errors come in their turn."""
    source = iter(items)
    with ThreadPoolExecutor(1, "ahead") as worker:
        future = worker.submit(next, source, _END)
        while (item := future.result()) is not _END:
            future = worker.submit(next, source, _END)
            yield item  # type: ignore[misc]
