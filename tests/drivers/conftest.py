import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pictures import write_png

PILLS = Path(__file__).parents[2] / ".." / "shared" / "data" / "pill" / "test" / "chip"


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.fixture
def coloured_folder(tmp_path: Path) -> Path:
    """Four plain PNGs of 40 x 30 px; picture k is (50 k, 10, 200 - 50 k)."""
    folder = tmp_path / "pictures"
    for k in range(4):
        write_png(folder / f"{k:02d}.png", (50 * k, 10, 200 - 50 * k))
    return folder


@pytest.fixture
def pills() -> Path:
    if not PILLS.is_dir():
        pytest.skip("no real images: ../shared/data/pill/test/chip is missing")
    return PILLS.resolve()
