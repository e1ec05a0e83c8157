"""Memory that engine and worker share: rooms for pictures, and a slot for each part in a worker with its map.

A camera that can makes its pictures here (`lend`); any other picture is copied into the room that belongs to
the part's slot. An anonymous file (memfd), handed to the worker as an open descriptor: it has no name, so no
crash can leave it behind. It is generous, and costs nothing: pages are taken only when written to.
"""

import contextlib
import mmap
import os
import weakref

import numpy as np
from numpy.typing import NDArray

SLOTS = 4  # two parts in a worker; while one with another model takes over there are two workers
ROOMS = SLOTS + 16
PICTURE_BYTES = 256 * 1024 * 1024  # 89 megapixels
MAP_BYTES = 4 * 1024 * 1024  # float32, up to 1024 x 1024
_MAPS_AT = ROOMS * PICTURE_BYTES


class Slab:
    """A mapped slab."""

    def __init__(self, fd: int) -> None:
        """Map what another process has created; the descriptor is ours from here on."""
        self.fd = fd
        self._memory = mmap.mmap(fd, _MAPS_AT + SLOTS * MAP_BYTES)
        self._address = np.frombuffer(self._memory, np.uint8).ctypes.data
        self._free = list(range(SLOTS, ROOMS))  # the one given back last is lent first: its pages are there

    @classmethod
    def create(cls) -> "Slab":
        """A new slab; its descriptor may be inherited by a worker."""
        fd = os.memfd_create("station-slab", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, _MAPS_AT + SLOTS * MAP_BYTES)
            return cls(fd)
        except OSError:
            os.close(fd)
            raise

    def lend(self, size: int) -> NDArray[np.uint8]:
        """`size` bytes in a room of their own, until nobody refers to them any more; see
        `drivers.camera.PictureMemory`. Where no room is free or large enough they are ordinary memory."""
        with contextlib.suppress(IndexError):  # all of them are lent
            if size <= PICTURE_BYTES:
                room = self._free.pop()
                lent = np.frombuffer(self._memory, np.uint8, size, room * PICTURE_BYTES)
                weakref.finalize(lent, self._free.append, room).atexit = False
                return lent
        return np.empty(size, np.uint8)

    def room_of(self, image_rgb: NDArray[np.uint8]) -> int | None:
        """The room that a picture fills from its beginning; None where it lies elsewhere."""
        room, offset = divmod(image_rgb.ctypes.data - self._address, PICTURE_BYTES)
        return room if 0 <= room < ROOMS and not offset and image_rgb.flags.c_contiguous else None

    def image(self, room: int, height: int, width: int) -> NDArray[np.uint8]:
        """View (height, width, 3) uint8 of the picture in a room; rooms 0 to SLOTS - 1 belong to the slots.

        Use it before the room is given to another picture.

        Raises:
            ValueError: the picture does not fit, or there is no such room.
        """
        count = height * width * 3
        if not 0 <= room < ROOMS or min(height, width) < 1 or count > PICTURE_BYTES:
            raise ValueError(
                f"a picture of {width} x {height} px does not fit room {room} of {ROOMS} "
                f"({PICTURE_BYTES} bytes)"
            )
        view = np.frombuffer(self._memory, np.uint8, count, room * PICTURE_BYTES)
        return view.reshape(height, width, 3)

    def anomaly_map(self, slot: int, height: int, width: int) -> NDArray[np.float32]:
        """View (height, width) float32 of a slot's anomaly map.

        Use it before the slot is given to another part.

        Raises:
            ValueError: the map does not fit, or there is no such slot.
        """
        count = height * width
        if not 0 <= slot < SLOTS or min(height, width) < 1 or count * 4 > MAP_BYTES:
            raise ValueError(
                f"a map of {width} x {height} does not fit slot {slot} of {SLOTS} ({MAP_BYTES} bytes)"
            )
        view = np.frombuffer(self._memory, np.float32, count, _MAPS_AT + slot * MAP_BYTES)
        return view.reshape(height, width)

    def close(self) -> None:
        """Let go of the memory. Views still held keep it mapped until they are gone."""
        with contextlib.suppress(BufferError):  # a view is still alive; the mapping goes with it
            self._memory.close()
        os.close(self.fd)
