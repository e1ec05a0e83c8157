"""Space kept back on the record's disk, so that rows can be written when the disk is full.

While the ballast lies there, pictures may be kept. When a commit finds no space it is given up, and from then
on pictures are shed until there is room for it again.
"""

import os
import shutil
from pathlib import Path

BALLAST = "ballast"  # of the file, beside the database
ROOM = 2  # times its size is free before it is taken, so that as much again stays


class Ballast:
    """One file of a fixed size. One thread, the recording stage, is the only caller."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        """Nothing is written before `restore`."""
        self._path = path
        self._size_bytes = size_bytes
        self.intact = False
        """Whether pictures may be kept."""

    def restore(self) -> bool:
        """Take the space, where as much again stays free; whether the ballast is there."""
        try:
            if self._path.exists() and self._path.stat().st_size == self._size_bytes:
                self.intact = True
            elif shutil.disk_usage(self._path.parent).free >= ROOM * self._size_bytes:
                with self._path.open("wb") as file:
                    if self._size_bytes:
                        os.posix_fallocate(file.fileno(), 0, self._size_bytes)
                self.intact = True
        except OSError:
            self._path.unlink(missing_ok=True)
        return self.intact

    def give_up(self) -> bool:
        """Free the space for rows; False when it was gone already."""
        had, self.intact = self.intact, False
        if had:
            self._path.unlink(missing_ok=True)
        return had
