"""Cameras for benchmarks: one whose pictures cost nothing, and one to which things happen when told."""

import threading
import time
from typing import IO

import numpy as np

from drivers.camera import create_camera
from drivers.config import CameraConfig, PylonConfig, SimulatedConfig
from drivers.errors import CameraError, CameraNotFound
from drivers.simulated import SimulatedCamera, SimulatedFaults
from drivers.types import CameraInfo, Grab, ImageRgb

_PREPARED = 29  # pictures; a prime, so that no other rhythm of the line falls in step


def prepared_pictures(width_px: int, height_px: int) -> list[ImageRgb]:
    """Smooth pictures with a camera's noise, all different: they compress as photographs do."""
    random = np.random.default_rng(1)
    y, x = np.mgrid[0:height_px, 0:width_px].astype(np.float32)
    pictures = []
    for phase in range(_PREPARED):
        shade = 120 + 60 * np.sin(x / 97 + phase) + 40 * np.cos(y / 71 - phase)
        noise = random.normal(0, 2, (height_px, width_px, 3)).astype(np.float32)
        image_rgb = np.clip(shade[..., None] + noise, 0, 255).astype(np.uint8)
        image_rgb.setflags(write=False)
        pictures.append(image_rgb)
    return pictures


class PreparedCamera:
    """Hands out prepared pictures at once; what is measured with it is the line alone."""

    def __init__(self, config: CameraConfig) -> None:
        assert isinstance(config, SimulatedConfig)
        self._config = config
        self._pictures = prepared_pictures(config.width_px, config.height_px)
        self._frame_id = 0
        self._exposed = False

    def open(self) -> CameraInfo:
        config = self._config
        return CameraInfo(config.camera_id, "prepared pictures", "P-1", config.width_px, config.height_px)

    def trigger(self) -> None:
        self._exposed = True

    def retrieve(self, timeout_s: float) -> Grab | None:
        if not self._exposed:
            time.sleep(timeout_s)
            return None
        self._exposed = False
        frame_id, self._frame_id = self._frame_id, self._frame_id + 1
        return Grab(frame_id, self._pictures[frame_id % len(self._pictures)], time.perf_counter_ns())

    def close(self) -> None:
        self._exposed = False


class StormCamera:
    """The configured camera, to which happens what `listen` reads: a word a line.

    fail: the next buffer fails. lose: the next trigger brings no picture. late: the next picture takes 0.3 s
    more. remove: it is unplugged, and back at the third attempt to open it.
    """

    def __init__(self, config: CameraConfig) -> None:
        self._fail: set[int] = set()
        self._lose: set[int] = set()
        self._disappear: set[int] = set()
        if isinstance(config, SimulatedConfig):
            faults = SimulatedFaults(fail=self._fail, lose=self._lose, disappear=self._disappear)
            self._camera = SimulatedCamera(config, faults)
        else:
            assert isinstance(config, PylonConfig)
            self._camera = create_camera(config)  # type: ignore[assignment]
        self._simulated = isinstance(config, SimulatedConfig)
        self._told: list[str] = []
        self._lock = threading.Lock()
        self._index = 0
        self._absent = 0
        self._late = self._dark = False

    def listen(self, words: IO[str]) -> None:
        """Until its end: take words, for the acquisition thread to carry out."""
        for word in words:
            with self._lock:
                self._told.append(word.strip())

    def open(self) -> CameraInfo:
        if self._absent:
            self._absent -= 1
            raise CameraNotFound("the camera is still unplugged; try again")
        return self._camera.open()

    def trigger(self) -> None:
        index, self._index = self._index, self._index + 1
        with self._lock:
            told = self._told.pop(0) if self._told else ""
        self._late, self._dark = told == "late", False
        if told == "remove":
            self._absent = 2
        if self._simulated:
            {"fail": self._fail, "lose": self._lose, "remove": self._disappear}.get(told, set()).add(index)
        elif told:
            self._happen_to_pylon(told)
        if not self._dark:
            self._camera.trigger()

    def _happen_to_pylon(self, told: str) -> None:
        device = self._camera._camera  # type: ignore[attr-defined]  # pylon's own ways to fail
        if device is None:
            raise CameraError("the camera is not open")
        if told == "fail":
            device.ForceFailedBufferCount.Value = 1
            device.ForceFailedBuffer.Execute()
        elif told == "remove":
            device.FirePnPCallback.Execute()
        self._dark = told == "lose"

    def retrieve(self, timeout_s: float) -> Grab | None:
        if self._late:
            time.sleep(0.3)
        return self._camera.retrieve(timeout_s)

    def close(self) -> None:
        self._camera.close()
