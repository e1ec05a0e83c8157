"""Compiled kernels on plain threads, which run outside the interpreter lock.

That needs no numba threading layer (its `workqueue` aborts the process when two threads use it at once), so
concurrent calls and forks are safe.
"""

import functools
import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

WORK_PER_THREAD = 2**18  # about 0.1 ms: less is not worth waking a thread for


def share(kernel: Callable[..., None], count: int, work: int, *arguments: object) -> None:
    """Call `kernel(first, last, *arguments)` over all of `range(count)`, shared out among torch's threads.

    `work`: of all calls together, counted as exponentials, or as four multiplications and additions each.
    """
    threads = max(1, min(torch.get_num_threads(), count, 1 + work // WORK_PER_THREAD))
    own, *others = itertools.pairwise(count * k // threads for k in range(threads + 1))
    submitted = [_pool(threads - 1).submit(kernel, *part, *arguments) for part in others]
    kernel(*own, *arguments)
    for future in submitted:
        future.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="kernel")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a forked child has the pool, but not its threads
