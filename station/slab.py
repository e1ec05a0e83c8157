"""Memory that engine and worker share: a few slots, each for one image and its anomaly map.

An anonymous file (memfd), handed to the worker as an open descriptor: it has no name, so no crash can leave
it behind. Pages are taken only when written to, so a generous slot costs nothing.
"""

import contextlib
import mmap
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAP_CAPACITY_BYTES = 4 * 1024 * 1024  # float32, up to 1024 x 1024
_PAGE = mmap.PAGESIZE


@dataclass(frozen=True, slots=True)
class SlabLayout:
    """How many slots, and how many bytes of image each can hold."""

    slots: int
    image_capacity_bytes: int

    @property
    def slot_bytes(self) -> int:
        """Bytes from one slot to the next, whole pages."""
        return -(-(self.image_capacity_bytes + MAP_CAPACITY_BYTES) // _PAGE) * _PAGE


class Slab:
    """A mapped slab. Arrays returned are views: use them before the slot is given to another part."""

    def __init__(self, fd: int, layout: SlabLayout) -> None:
        self.fd = fd
        self.layout = layout
        self._memory = mmap.mmap(fd, layout.slots * layout.slot_bytes)

    @classmethod
    def create(cls, layout: SlabLayout) -> "Slab":
        """A new slab; its descriptor may be inherited by a worker."""
        fd = os.memfd_create("station-slab", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, layout.slots * layout.slot_bytes)
            return cls(fd, layout)
        except OSError:
            os.close(fd)
            raise

    def image(self, slot: int, height: int, width: int) -> NDArray[np.uint8]:
        """View (height, width, 3) uint8 of a slot's image.

        Raises:
            ValueError: the image does not fit the slot.
        """
        return self._view(slot, 0, self.layout.image_capacity_bytes, (height, width, 3), np.dtype(np.uint8))

    def anomaly_map(self, slot: int, height: int, width: int) -> NDArray[np.float32]:
        """View (height, width) float32 of a slot's anomaly map.

        Raises:
            ValueError: the map does not fit the slot.
        """
        start = self.layout.slot_bytes - MAP_CAPACITY_BYTES
        return self._view(slot, start, MAP_CAPACITY_BYTES, (height, width), np.dtype(np.float32))

    def _view(
        self, slot: int, start: int, capacity: int, shape: tuple[int, ...], dtype: np.dtype[np.generic]
    ) -> NDArray:  # type: ignore[type-arg]
        count = int(np.prod(shape))
        if not 0 <= slot < self.layout.slots or min(shape) < 1 or count * dtype.itemsize > capacity:
            raise ValueError(
                f"{shape} {dtype} does not fit slot {slot} of {self.layout.slots} ({capacity} bytes each)"
            )
        offset = slot * self.layout.slot_bytes + start
        return np.frombuffer(self._memory, dtype, count, offset).reshape(shape)

    def close(self) -> None:
        """Let go of the memory. Views still held keep it mapped until they are gone."""
        with contextlib.suppress(BufferError):  # a view is still alive; the mapping goes with it
            self._memory.close()
        os.close(self.fd)
