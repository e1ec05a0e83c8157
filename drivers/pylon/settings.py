"""Writes a configuration to an opened camera, and verifies it.

A settings file can be accepted wrongly: it is loaded with validation, read back, and compared.
"""

import math
from pathlib import Path
from typing import Any

from drivers.config import PylonConfig
from drivers.errors import CameraSettingsError
from drivers.genapi import same_value, settings_of
from drivers.pylon.api import genicam, line_of, pylon
from drivers.pylon.pictures import READABLE


class CameraSettings:
    """Writes a configuration to an opened camera that does not grab, and verifies it."""

    def __init__(self, camera: Any, config: PylonConfig) -> None:
        """Nothing is written yet."""
        self._camera = camera
        self._config = config
        self.pixel_format = ""
        """As read back."""
        self.facts: dict[str, float | int | str] = {}
        """Exposure and gain as read back, for each frame."""

    def apply(self) -> None:
        """Settings file, then what the configuration adds, then the trigger.

        Raises:
            CameraSettingsError: a setting was refused or reads back differently.
        """
        config = self._config
        if config.settings_file is not None:
            self._load_file(config.settings_file)
        if config.pixel_format:
            self._set("PixelFormat", config.pixel_format)
        self.pixel_format = self._camera.PixelFormat.Value
        if self.pixel_format not in READABLE:
            readable = ", ".join(READABLE)
            raise self._error(
                f"pixel format {self.pixel_format} is not read here; set `pixel_format`: {readable}"
            )
        self._set_region("Width", "OffsetX", config.width_px)
        self._set_region("Height", "OffsetY", config.height_px)
        exposure = self._first_of("ExposureTimeAbs", "ExposureTime")
        gain = self._first_of("Gain", "GainRaw")
        if config.exposure_us:
            self._switch_off("ExposureAuto")
            self._set(exposure, config.exposure_us, within=0.01)
        if config.gain_db is not None:
            self._switch_off("GainAuto")
            self._set(gain, config.gain_db if gain == "Gain" else round(config.gain_db), within=0.1)
        if config.image_folder is not None:
            self._show_files(config.image_folder)
        self._set("TriggerSelector", "FrameStart")
        self._set("TriggerMode", "On")
        self._set("TriggerSource", config.trigger_source)
        for fact, name in (("exposure_us", exposure), ("gain_db" if gain == "Gain" else "gain_raw", gain)):
            if self._node(name).IsReadable():
                self.facts[fact] = self._node(name).Value

    def _load_file(self, path: Path) -> None:
        if not path.is_file():
            raise self._error(f"no settings file {path}; correct `settings_file`")
        try:
            pylon.FeaturePersistence.Load(str(path), self._camera.GetNodeMap(), True)
            actual = settings_of(pylon.FeaturePersistence.SaveToString(self._camera.GetNodeMap()))
        except genicam.GenericException as error:
            raise self._error(f"settings file {path} refused ({line_of(error)}); save it anew") from error
        wanted = settings_of(path.read_text(encoding="utf-8"))
        if "PixelFormat" not in wanted and not self._config.pixel_format:
            raise self._error(f"settings file {path} has lost PixelFormat; set `pixel_format`")
        for name, value in wanted.items():
            found = actual.get(name, "nothing")
            if not same_value(value, found):
                raise self._error(f"{name} is {value} in {path} and reads back {found}; save the file anew")

    def _set_region(self, size: str, offset: str, wanted_px: int) -> None:
        """A centred region of interest along one axis."""
        if not wanted_px:
            return
        movable = self._node(offset).IsWritable()
        if movable:
            self._set(offset, 0)  # an old offset limits the size
        self._set(size, wanted_px)
        if movable:
            node = self._node(offset)
            self._set(offset, node.Max // 2 // node.Inc * node.Inc)

    def _show_files(self, path: Path) -> None:
        if not path.exists():
            raise self._error(f"no file or folder {path}; correct `image_folder`")
        self._set("TestImageSelector", "Off")
        self._set("ImageFilename", str(path))
        self._set("ImageFileMode", "On")

    def _node(self, name: str) -> Any:
        # Every name is there in Python; IsWritable and IsReadable say whether the camera has it.
        return getattr(self._camera, name)

    def _first_of(self, *names: str) -> str:
        return next((name for name in names if self._node(name).IsReadable()), names[-1])

    def _switch_off(self, name: str) -> None:
        if self._node(name).IsWritable():
            self._set(name, "Off")

    def _set(self, name: str, value: str | float, within: float = 0.0) -> None:
        """Write one setting and read it back; `within`: tolerated difference, relative above 1."""
        node = self._node(name)
        if not node.IsWritable():
            raise self._error(f"this camera has no writable {name} (wanted {value}); leave it out")
        try:
            node.Value = value
            actual = node.Value
        except genicam.GenericException as error:
            raise self._error(f"{name} = {value} refused ({line_of(error)})") from error
        same = actual == value
        if not same and within:
            same = math.isclose(float(actual), float(value), rel_tol=within, abs_tol=within)
        if not same:
            raise self._error(f"{name} was set to {value} and reads back {actual}; use a value it takes")

    def _error(self, text: str) -> CameraSettingsError:
        return CameraSettingsError(f"{self._config.camera_id}: {text}")
