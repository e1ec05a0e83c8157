"""What comes out of a camera.

A part's identity and time are born at its trigger (`Trigger`) and are never re-invented. Times in `_ns` are
`time.perf_counter_ns()` (monotonic, shared by all processes of one machine); `_unix_ns` is wall-clock time,
for the record only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

ImageRgb = NDArray[np.uint8]  # (H, W, 3), read-only once it has left the driver


@dataclass(frozen=True, slots=True)
class Trigger:
    """One part in front of the camera, before anything else is known about it.

    Attributes:
        plc_part_id: what the PLC calls this part, 0 to 2**32 - 1; None where it says nothing of it.
    """

    part_seq: int
    camera_id: str
    triggered_ns: int
    triggered_unix_ns: int
    plc_part_id: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Grab:
    """One buffer from a camera: an image, or the reason why there is none.

    Attributes:
        frame_id: the device's own counter, 0-based where the device allows it; a gap means lost buffers.
        image_rgb: uint8 (H, W, 3), read-only and owned by the receiver; None when the buffer failed.
        captured_ns: `perf_counter_ns` when the buffer arrived.
        error: empty, or one line saying what failed. A failed buffer is not a removal.
        device: facts the device gave with the frame (exposure_us, gain_db, ...), JSON values only.
    """

    frame_id: int
    image_rgb: ImageRgb | None
    captured_ns: int
    error: str = ""
    device: Mapping[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """The image of one part: a `Trigger` joined with its `Grab`.

    Attributes:
        image_rgb: uint8 (H, W, 3), read-only.
    """

    trigger: Trigger
    frame_id: int
    image_rgb: ImageRgb
    captured_ns: int
    device: Mapping[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CameraInfo:
    """What an opened camera says of itself.

    Attributes:
        width_px: of every image; where `fixed_size` is false, of the first one.
        height_px: likewise.
        fixed_size: every image must have this size (a sensor); false for a folder of pictures of many sizes.
    """

    camera_id: str
    model: str
    serial: str
    width_px: int
    height_px: int
    fixed_size: bool = True
