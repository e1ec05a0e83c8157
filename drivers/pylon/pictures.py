"""From what pylon has grabbed to an RGB picture, written once.

Where the camera sends RGB, pylon grabs straight into the memory that the picture stays in (`BufferFactory`);
a picture then holds its buffer until nobody refers to it any more. Any other format is converted into such
memory. See `drivers.camera.PictureMemory`.
"""

import itertools
import weakref
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from drivers.camera import PictureMemory
from drivers.pylon.api import pylon
from drivers.types import ImageRgb

BUFFERS = 8
HELD_AT_MOST = 4  # by pictures in use; the camera keeps the others, and further pictures are copied
_RGB = ("RGB8", "RGB8Packed")

# pylon's name -> OpenCV's conversion to RGB. The two name a Bayer pattern by different corners.
_TO_RGB = {
    "Mono8": cv2.COLOR_GRAY2RGB,
    "BayerRG8": cv2.COLOR_BayerRGGB2RGB,
    "BayerGR8": cv2.COLOR_BayerGRBG2RGB,
    "BayerGB8": cv2.COLOR_BayerGBRG2RGB,
    "BayerBG8": cv2.COLOR_BayerBGGR2RGB,
    "BGR8": cv2.COLOR_BGR2RGB,
    "BGR8Packed": cv2.COLOR_BGR2RGB,
}
READABLE = (*_TO_RGB, *_RGB)

Pictures = Callable[[Any], ImageRgb]
"""A grab result that succeeded to its picture (H, W, 3). The result is the picture's from then on."""


def pictures_of(camera: Any, pixel_format: str, memory: PictureMemory) -> Pictures:
    """How pictures of an opened camera that does not grab yet are made."""
    camera.MaxNumBuffer.Value = BUFFERS
    if pixel_format in _RGB:
        return GrabbedInPlace(camera, memory)
    return Converted(_TO_RGB[pixel_format], memory)


class Converted:
    """Pictures of every format but RGB."""

    def __init__(self, code: int, memory: PictureMemory) -> None:
        """`code`: OpenCV's conversion."""
        self._code = code
        self._memory = memory

    def __call__(self, result: Any) -> ImageRgb:
        """See `Pictures`."""
        height, width = result.Height, result.Width
        image_rgb = self._memory(height * width * 3).reshape(height, width, 3)
        with result.GetArrayZeroCopy() as array:
            cv2.cvtColor(array, self._code, dst=image_rgb)
            del array  # or leaving the block raises
        result.Release()
        return image_rgb


class GrabbedInPlace(pylon.BufferFactory):  # type: ignore[misc]
    """Pictures of a camera that sends RGB, in the buffers that pylon grabbed them into.

    pylon calls the methods with capitals, in whatever thread starts grabbing or lets go of a result.
    """

    def __init__(self, camera: Any, memory: PictureMemory) -> None:
        """Gives the camera its buffers from here on."""
        super().__init__()
        self._memory = memory
        self._buffers: dict[int, NDArray[np.uint8]] = {}
        self._names = itertools.count()
        self._may_be_held = [True] * HELD_AT_MOST
        camera.SetBufferFactory(self, pylon.Cleanup_None)

    def AllocateBuffer(self, size: int) -> tuple[int, int]:  # noqa: N802
        """Memory to grab into: its address, and the number by which results name it."""
        name, buffer = next(self._names), self._memory(size)
        self._buffers[name] = buffer
        return buffer.ctypes.data, name

    def FreeBuffer(self, _: int, name: int) -> None:  # noqa: N802
        """Pylon does not need it any more."""
        del self._buffers[name]

    def DestroyBufferFactory(self) -> None:  # noqa: N802
        """Nothing: Python owns it."""

    def __call__(self, result: Any) -> ImageRgb:
        """See `Pictures`."""
        height, width = result.Height, result.Width
        row_bytes = width * 3
        grabbed = self._buffers[result.BufferContext][: height * (row_bytes + result.PaddingX)]
        if result.PaddingX or not self._may_be_held:
            image_rgb = self._memory(height * row_bytes).reshape(height, row_bytes)
            image_rgb[:] = grabbed.reshape(height, -1)[:, :row_bytes]
            result.Release()
        else:
            self._may_be_held.pop()
            # An array of its own, not a view of the buffer's: whatever is cut from it keeps this one alive.
            image_rgb = np.frombuffer(grabbed.data, np.uint8)
            weakref.finalize(image_rgb, self._let_go, result).atexit = False
        return image_rgb.reshape(height, width, 3)

    def _let_go(self, result: Any) -> None:
        """In the thread that used the picture last."""
        try:
            result.Release()
        finally:
            self._may_be_held.append(True)
