"""Prefetch: the next items are made in a background thread while the present one is used."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def prefetch(make: Callable[[A], B], keys: Iterable[A], ahead: int = 2) -> Iterator[B]:
    """Yield `make(key)` for every key, in order, keeping up to `ahead` made in advance."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        waiting: deque[object] = deque()
        try:
            for key in keys:
                waiting.append(pool.submit(make, key))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()  # type: ignore[attr-defined]
            while waiting:
                yield waiting.popleft().result()  # type: ignore[attr-defined]
        finally:
            for future in waiting:
                future.cancel()  # type: ignore[attr-defined]
