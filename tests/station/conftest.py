import os
import subprocess
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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Four megabytes."""
    yield from _mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=4m", "none")


@pytest.fixture
def real_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own kind, which can be frozen and can fail."""
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(16_000_000)
    try:
        subprocess.run(["mkfs.ext4", "-q", image], check=True)
    except OSError as error:
        pytest.skip(f"no file system can be made here: {error}")
    yield from _mounted(tmp_path / "disk", "-o", "loop,errors=remount-ro", str(image))


def _mounted(folder: Path, *how: str) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    folder.mkdir()
    mounted = subprocess.run(["mount", *how, folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def open_descriptors() -> set[str]:
    """Descriptors of this process, by number, without the listing's own."""
    return {entry.name for entry in Path("/proc/self/fd").iterdir() if entry.exists()}
