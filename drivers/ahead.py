"""The next picture, made on one thread before it is asked for."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """Makes picture `index` once, in the background; keeps at most one that nobody has asked for."""

    def __init__(self, make: Callable[[int], T], thread_name: str) -> None:
        """No thread runs before the first `begin`."""
        self._make = make
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=thread_name)
        self._index = -1
        self._future: Future[T] | None = None

    def begin(self, index: int) -> Future[T]:
        """The future of a picture, begun at the first call for it, forgotten at the first for another."""
        if self._future is None or index != self._index:
            self._index, self._future = index, self._executor.submit(self._make, index)
        return self._future

    def close(self) -> None:
        """Let go of what was not begun and join the thread."""
        self._future = None
        self._executor.shutdown(wait=True, cancel_futures=True)
