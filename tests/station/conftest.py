import threading
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """No thread, process or descriptor outlives the test."""
    threads = set(threading.enumerate())
    descriptors = open_descriptors()
    yield
    assert set(threading.enumerate()) <= threads
    assert open_descriptors() <= descriptors


def open_descriptors() -> set[str]:
    """Descriptors of this process, by number, without the listing's own."""
    return {entry.name for entry in Path("/proc/self/fd").iterdir() if entry.exists()}
