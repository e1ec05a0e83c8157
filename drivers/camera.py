"""The contract every camera keeps (`simulated`, `replay`, `pylon`).

One thread, the acquisition thread, is the only caller. `open` undoes itself when it fails, and starts over
when the camera is open already. `close` may be called in any state, any number of times.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drivers.config import CameraConfig, PylonConfig, ReplayConfig, SimulatedConfig
from drivers.types import CameraInfo, Grab

PictureMemory = Callable[[int], NDArray[np.uint8]]
"""That many bytes, the caller's own until nobody refers to them. Any thread may call it. Pictures made in
memory that the worker shares need not be copied there."""


def private_memory(size: int) -> NDArray[np.uint8]:
    """`PictureMemory` of this process alone."""
    return np.empty(size, np.uint8)


class Camera(Protocol):
    """One image per trigger."""

    def open(self) -> CameraInfo:
        """Find the camera, load and verify its settings, start grabbing. Blocks up to seconds.

        Raises:
            CameraNotFound: it is not there.
            CameraSettingsError: a setting was refused or reads back differently.
        """
        ...

    def trigger(self) -> None:
        """Ask for one exposure by software. Blocks at most ~100 ms until the camera can take a trigger.

        It gives up on whatever an earlier trigger has not brought yet: a late picture is never taken for this
        part's.

        Raises:
            CameraLost: the camera is gone.
            CameraError: the camera is busy, and the part is missed; or it is not open.
        """
        ...

    def retrieve(self, timeout_s: float) -> Grab | None:
        """The next buffer in order, never older than the last `trigger`; None when none came in `timeout_s`.

        Raises:
            CameraLost: the camera is gone.
            CameraError: the camera is not open.
        """
        ...

    def close(self) -> None:
        """Stop grabbing and let go of the device. Never raises."""
        ...


def create_camera(config: CameraConfig, memory: PictureMemory = private_memory) -> Camera:
    """The camera for its configuration. pypylon is imported only for `PylonConfig`.

    Args:
        config: which camera, and its settings.
        memory: for pictures of cameras that can make them where they are told to: pylon's.
    """
    match config:
        case SimulatedConfig():
            from drivers.simulated import SimulatedCamera

            return SimulatedCamera(config)
        case ReplayConfig():
            from drivers.replay import ReplayCamera

            return ReplayCamera(config)
        case PylonConfig():
            from drivers.pylon import PylonCamera

            return PylonCamera(config, memory)
