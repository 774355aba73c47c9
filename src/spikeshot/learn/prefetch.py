"""Prefetch: the next items are made in background threads while the present one is used."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def prefetch(
    make: Callable[[A], B], keys: Iterable[A], ahead: int = 2, *, threads: int = 1
) -> Generator[B, None, None]:
    """Yield `make(key)` for every key, in order, keeping up to `ahead` made in advance.

    When it is closed, items under way are finished and no other is begun.
    """
    with ThreadPoolExecutor(max_workers=threads) as pool:
        waiting: deque[Future[B]] = deque()
        try:
            for key in keys:
                waiting.append(pool.submit(make, key))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
