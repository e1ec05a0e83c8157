"""Compiled kernels on plain threads, which run outside the interpreter lock.

That needs no numba threading layer (its `workqueue` aborts the process when two threads use it at once), so
concurrent calls and forks are safe.
"""

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


def share(kernel: Callable[..., None], count: int, threads: int, *arguments: object) -> None:
    """Call `kernel(first, last, *arguments)` over all of `range(count)`, in at most `threads` parts."""
    threads = max(1, min(threads, count))
    own, *others = itertools.pairwise(count * k // threads for k in range(threads + 1))
    submitted = [_pool(threads - 1).submit(kernel, *part, *arguments) for part in others]
    kernel(*own, *arguments)
    for future in submitted:
        future.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kernel")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked child has the pool, but not its threads
