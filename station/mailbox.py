"""A bounded queue between two threads that can be waited on together with sockets."""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """First in, first out. `fileno()` is readable while something waits, so a selector or ZeroMQ poller can
    watch it.

    Items for which `exempt` is true are always taken (they carry no pixels and must not be lost); they do not
    count.
    """

    def __init__(self, capacity: int, exempt: Callable[[T], bool] = lambda item: False) -> None:
        self._capacity = capacity
        self._exempt = exempt
        self._items: deque[T] = deque()
        self._counted = 0
        self._lock = threading.Lock()
        self._closed = False
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def put(self, item: T) -> bool:
        """Append; False (and nothing changed) when full. Never blocks."""
        with self._lock:
            if not self._exempt(item):
                if self._counted >= self._capacity:
                    return False
                self._counted += 1
            self._items.append(item)
            self._signal()
            return True

    def peek(self) -> T | None:
        """The oldest item, left in place; None when empty."""
        with self._lock:
            return self._items[0] if self._items else None

    def pop(self) -> T | None:
        """The oldest item, taken out; None when empty."""
        with self._lock:
            if not self._items:
                return None
            item = self._items.popleft()
            if not self._exempt(item):
                self._counted -= 1
            return item

    def __len__(self) -> int:
        with self._lock:
            return len(self._items)

    def fileno(self) -> int:
        """A descriptor that is readable after `put` or `wake` until `clear`."""
        return self._eventfd

    def wake(self) -> None:
        """Make `fileno()` readable without an item."""
        with self._lock:
            self._signal()

    def _signal(self) -> None:
        if not self._closed:
            os.eventfd_write(self._eventfd, 1)

    def clear(self) -> None:
        """Make `fileno()` unreadable until the next `put` or `wake`. Call it before looking at the items."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._eventfd)

    def close(self) -> None:
        """Close the descriptor; what is put from now on wakes nobody. May be called twice."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._eventfd)
