"""A Basler camera through pypylon, which only this file imports. Pylon's camera emulator is the same API.

What bites, and what is done about it:
- Triggers fired while the camera is busy vanish without a trace: `WaitForFrameTriggerReady` comes first.
- A picture that is late for its own part must not be taken for the next one's: a trigger whose predecessor
  was not answered restarts grabbing, which throws away everything in flight.
- Unplugging raises nothing by itself: removal is polled in every slice of a wait.
- Results are copied out and released at once; a held or freed one starves or corrupts the pool.
- A settings file can be accepted wrongly: it is loaded with validation, read back, and compared.
"""

import math
import os
import re
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from drivers.config import PylonConfig
from drivers.errors import CameraError, CameraLost, CameraNotFound, CameraSettingsError, OutputError
from drivers.genapi import FrameIds, same_value, settings_of
from drivers.types import CameraInfo, Grab, ImageRgb

with warnings.catch_warnings():
    # SWIG's types lack __module__; with warnings as errors the import would crash the interpreter.
    warnings.simplefilter("ignore", DeprecationWarning)
    from pypylon import genicam, pylon

EMULATOR_CLASS = "BaslerCamEmu"
BUFFERS = 8
_SLICE_MS = 100


def _mono(array: NDArray[np.uint8]) -> ImageRgb:
    return np.asarray(cv2.cvtColor(array, cv2.COLOR_GRAY2RGB), np.uint8)


def _colour(code: int) -> Callable[[NDArray[np.uint8]], ImageRgb]:
    return lambda array: np.asarray(cv2.cvtColor(array, code), np.uint8)


# pylon's name -> (H, W) or (H, W, 3) to RGB. Pylon and OpenCV name a Bayer pattern by different corners.
TO_RGB: dict[str, Callable[[NDArray[np.uint8]], ImageRgb]] = {
    "Mono8": _mono,
    "BayerRG8": _colour(cv2.COLOR_BayerRGGB2RGB),
    "BayerGR8": _colour(cv2.COLOR_BayerGRBG2RGB),
    "BayerGB8": _colour(cv2.COLOR_BayerGBRG2RGB),
    "BayerBG8": _colour(cv2.COLOR_BayerBGGR2RGB),
    "RGB8": np.copy,
    "RGB8Packed": np.copy,
    "BGR8": _colour(cv2.COLOR_BGR2RGB),
    "BGR8Packed": _colour(cv2.COLOR_BGR2RGB),
}


class PylonCamera:
    """See the module's docstring and `drivers.camera.Camera`."""

    def __init__(self, config: PylonConfig) -> None:
        """The device is not touched before `open`."""
        self._config = config
        self._camera: Any = None
        self._outputs_lock = (
            threading.Lock()
        )  # user outputs are switched by other threads than the camera's own
        self._to_rgb: Callable[[NDArray[np.uint8]], ImageRgb] = _mono
        self._facts: dict[str, float | int | str] = {}
        self._frame_ids = FrameIds()
        self._unanswered = False

    def open(self) -> CameraInfo:
        """Find the camera, load, write and verify its settings, start grabbing.

        Raises:
            CameraNotFound: no camera of this serial, several and no serial, or another program has it.
            CameraSettingsError: a setting was refused or reads back differently.
        """
        self.close()
        try:
            info = self._open_device()
            settings = CameraSettings(self._camera, self._config)
            settings.apply()
            self._to_rgb = TO_RGB[settings.pixel_format]
            self._facts = settings.facts
            self._camera.MaxNumBuffer.Value = BUFFERS
            self._frame_ids = FrameIds()
            self._unanswered = False
            self._camera.StartGrabbing(pylon.GrabStrategy_OneByOne)
            return CameraInfo(
                camera_id=self._config.camera_id,
                model=info.GetModelName(),
                serial=info.GetSerialNumber(),
                width_px=self._camera.Width.Value,
                height_px=self._camera.Height.Value,
                fixed_size=self._config.image_folder is None,
            )
        except genicam.GenericException as error:
            self.close()
            raise CameraNotFound(f"{self._name()}: cannot be opened ({_line(error)})") from error
        except BaseException:
            self.close()
            raise

    def trigger(self) -> None:
        """One software trigger, after the camera has said that it takes one (at most 100 ms).

        Raises:
            CameraLost: the camera was removed.
            CameraError: not open, still busy, or triggered by its input line; the part is missed.
        """
        camera = self._opened()
        if self._config.trigger_source != "Software":
            raise CameraError(
                f"{self._name()}: triggered by {self._config.trigger_source}, not by software; "
                f"set `trigger_source: Software` for that"
            )
        try:
            if self._unanswered:
                camera.StopGrabbing()
                self._frame_ids.restart()
                camera.StartGrabbing(pylon.GrabStrategy_OneByOne)
            if not camera.WaitForFrameTriggerReady(_SLICE_MS, pylon.TimeoutHandling_Return):
                raise CameraError(f"{self._name()}: still busy after {_SLICE_MS} ms; trigger more slowly")
            camera.TriggerSoftware.Execute()
        except genicam.GenericException as error:
            self._raise_if_removed()
            raise CameraError(f"{self._name()}: trigger failed ({_line(error)})") from error
        self._unanswered = True

    def retrieve(self, timeout_s: float) -> Grab | None:
        """The next buffer; waits in slices and looks for a removal in each.

        Raises:
            CameraLost: the camera was removed.
            CameraError: not open, or pylon refused.
        """
        camera = self._opened()
        deadline_ns = time.perf_counter_ns() + round(timeout_s * 1e9)
        while True:
            self._raise_if_removed()
            left_ms = max(0, math.ceil((deadline_ns - time.perf_counter_ns()) / 1e6))
            try:
                result = camera.RetrieveResult(min(left_ms, _SLICE_MS), pylon.TimeoutHandling_Return)
                if result.IsValid():
                    try:
                        grab = self._grab(result, time.perf_counter_ns())
                    finally:
                        result.Release()
                    self._unanswered = False
                    return grab
            except genicam.GenericException as error:
                self._raise_if_removed()
                raise CameraError(f"{self._name()}: retrieving failed ({_line(error)})") from error
            if left_ms <= _SLICE_MS:
                return None

    def close(self) -> None:
        """Stop grabbing and destroy the device, so that the next `open` finds a removed one anew."""
        with self._outputs_lock:
            camera, self._camera = self._camera, None
            if camera is None:
                return
            for step in (camera.StopGrabbing, camera.DestroyDevice):
                try:
                    step()
                except genicam.GenericException:
                    continue  # a removed device refuses; letting go of it is all there is

    def write_user_output(self, name: str, on: bool) -> None:
        """Switch one of the camera's user outputs and read it back. Any thread may call it.

        A user output keeps its level when the station dies; what must fall then needs a PLC that watches it.

        Raises:
            OutputError: not open, no such output, or it did not take the value.
        """
        with self._outputs_lock:
            camera = self._camera
            if camera is None:
                raise OutputError(f"{self._name()}: {name} was not switched, the camera is not open")
            try:
                camera.UserOutputSelector.Value = name
                camera.UserOutputValue.Value = on
                actual = camera.UserOutputValue.Value
            except genicam.GenericException as error:
                raise OutputError(
                    f"{self._name()}: {name} was not switched ({_line(error)}); check `user_output`"
                ) from error
        if actual != on:
            raise OutputError(
                f"{self._name()}: {name} was set to {on} and reads back {actual}; check the camera"
            )

    def _open_device(self) -> Any:
        config = self._config
        if config.emulated:
            number = re.fullmatch(
                r"0815-00(\d\d)", config.serial
            )  # the emulators' serials count from 0815-0000
            os.environ.setdefault("PYLON_CAMEMU", str(int(number[1]) + 1 if number else 1))
        factory = pylon.TlFactory.GetInstance()
        # Never an emulated camera for a real one, nor the other way round.
        devices = factory.EnumerateDevices()
        present = [d for d in devices if (d.GetDeviceClass() == EMULATOR_CLASS) == config.emulated]
        serials = [d.GetSerialNumber() for d in present]
        matching = [d for d in present if config.serial in ("", d.GetSerialNumber())]
        found = f"found: {', '.join(serials) or 'none'}"
        if not matching:
            hint = "check cable and power"
            if config.emulated:
                hint = "correct `serial`, or set PYLON_CAMEMU to how many emulated cameras there are"
            raise CameraNotFound(f"{self._name()}: no such camera ({found}); {hint}")
        if len(matching) > 1:
            raise CameraNotFound(f"{self._name()}: several cameras ({found}); set `serial` to one of them")
        self._camera = pylon.InstantCamera(factory.CreateDevice(matching[0]))
        self._camera.Open()
        return matching[0]

    def _grab(self, result: Any, captured_ns: int) -> Grab:
        frame_id = self._frame_ids.of(result.BlockID)
        facts = dict(self._facts)
        if result.TimeStamp:
            facts["device_timestamp"] = result.TimeStamp
        if not result.GrabSucceeded():
            error = f"buffer failed: {result.GetErrorDescription()} (code 0x{result.GetErrorCode():x})"
            return Grab(frame_id, None, captured_ns, error, facts)
        if not (result.Width and result.Height):  # the last frame of an unplugged camera can have no rows
            return Grab(
                frame_id, None, captured_ns, f"empty image of {result.Width} x {result.Height} px", facts
            )
        image_rgb = self._to_rgb(result.Array)
        image_rgb.setflags(write=False)
        return Grab(frame_id, image_rgb, captured_ns, device=facts)

    def _opened(self) -> Any:
        if self._camera is None:
            raise CameraError(f"{self._name()}: not open; open it first")
        return self._camera

    def _raise_if_removed(self) -> None:
        if self._camera.IsCameraDeviceRemoved():
            raise CameraLost(f"{self._name()}: removed; check cable and power, then close and open it again")

    def _name(self) -> str:
        kind = "emulated camera" if self._config.emulated else "camera"
        return f"{self._config.camera_id} ({kind} {self._config.serial or 'of any serial'})"


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
        if self.pixel_format not in TO_RGB:
            readable = ", ".join(TO_RGB)
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
            raise self._error(f"settings file {path} refused ({_line(error)}); save it anew") from error
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
            raise self._error(f"{name} = {value} refused ({_line(error)})") from error
        same = actual == value
        if not same and within:
            same = math.isclose(float(actual), float(value), rel_tol=within, abs_tol=within)
        if not same:
            raise self._error(f"{name} was set to {value} and reads back {actual}; use a value it takes")

    def _error(self, text: str) -> CameraSettingsError:
        return CameraSettingsError(f"{self._config.camera_id}: {text}")


def _line(error: Exception) -> str:
    """A GenICam message without the place in its C++ source."""
    return re.sub(r"\s*: \w+ thrown .*", "", str(error).strip().splitlines()[0])
