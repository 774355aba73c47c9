"""Work shared out by hand to as many threads as torch has.

numba's own parallel loops would fight torch's threads for the cores and take ten times as long to
compile. The kernels release the interpreter and wait for nothing but their work.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise

import torch


def threads_for(work: int, worth: int) -> int:
    """Return how many threads to use where one is worth waking for `worth` units of work."""
    return max(1, min(torch.get_num_threads(), work // worth))


def share_out(total: int, threads: int, job: Callable[[int, int, int], None]) -> None:
    """Call `job(i, start, stop)` for `threads` equal shares of `total`, at the same time."""
    if threads < 2:
        job(0, 0, total)
        return
    cuts = [round(total * i / threads) for i in range(threads + 1)]
    jobs = [
        _pool(threads).submit(job, i, start, stop) for i, (start, stop) in enumerate(pairwise(cuts))
    ]
    for each in jobs:
        each.result()


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="spikes")
