"""A Basler camera through pypylon; nothing else here imports pypylon. Pylon's camera emulator is the same API.

What bites, and what is done about it:
- Triggers fired while the camera is busy vanish without a trace: `WaitForFrameTriggerReady` comes first.
- A picture that is late for its own part must not be taken for the next one's: a trigger whose predecessor was
  not answered restarts grabbing, which throws away everything in flight.
- Unplugging raises nothing by itself: removal is polled in every slice of a wait.
- Results are copied out and released at once; a held or freed one starves or corrupts the pool.
- A settings file can be accepted wrongly: it is loaded with validation, read back, and compared.
"""

import math
import os
import time
import warnings
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from drivers.config import PylonConfig
from drivers.errors import CameraError, CameraLost, CameraNotFound, CameraSettingsError
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
        self._to_rgb: Callable[[NDArray[np.uint8]], ImageRgb] = _mono
        self._facts: dict[str, float | int | str] = {}
        self._frame_ids = FrameIds()
        self._unanswered = False

    def open(self) -> CameraInfo:
        """Find the camera, load, write and verify its settings, start grabbing.

        Raises:
            CameraNotFound: no camera with this serial, several and no serial, or it is taken by another program.
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
            )
        except genicam.GenericException as error:
            self.close()
            raise CameraNotFound(f"{self._name()}: cannot be opened ({_line(error)})") from error
        except CameraError:
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
                f"{self._name()}: triggered by {self._config.trigger_source}, cannot be triggered by software; "
                f"set `trigger_source: Software` for that"
            )
        try:
            if self._unanswered:
                camera.StopGrabbing()
                self._frame_ids.restart()
                camera.StartGrabbing(pylon.GrabStrategy_OneByOne)
            if not camera.WaitForFrameTriggerReady(_SLICE_MS, pylon.TimeoutHandling_Return):
                raise CameraError(
                    f"{self._name()}: not ready for a trigger after {_SLICE_MS} ms; trigger more slowly"
                )
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
        camera, self._camera = self._camera, None
        if camera is None:
            return
        for step in (camera.StopGrabbing, camera.DestroyDevice):
            try:
                step()
            except genicam.GenericException:  # noqa: PERF203 (a removed device refuses; letting go is all there is)
                continue

    def _open_device(self) -> Any:
        config = self._config
        if config.emulated:
            _, _, number = config.serial.rpartition("-")
            os.environ.setdefault("PYLON_CAMEMU", str(int(number) + 1 if number.isdecimal() else 1))
        factory = pylon.TlFactory.GetInstance()
        # Never an emulated camera for a real one, nor the other way round.
        present = [
            d for d in factory.EnumerateDevices() if (d.GetDeviceClass() == EMULATOR_CLASS) == config.emulated
        ]
        serials = [d.GetSerialNumber() for d in present]
        matching = [d for d in present if config.serial in ("", d.GetSerialNumber())]
        found = f"found: {', '.join(serials) or 'none'}"
        if not matching:
            hint = (
                "PYLON_CAMEMU must be set before pylon is first used"
                if config.emulated
                else "check cable and power"
            )
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
            error = f"buffer failed: {result.GetErrorDescription() or 'no description'} (0x{result.GetErrorCode():x})"
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


class FrameIds:
    """Frame ids that only rise, from block ids that wrap at 16 bits (GigE Vision 1.x: 65535 -> 1) and restart."""

    def __init__(self) -> None:
        """As after StartGrabbing."""
        self._base = 0
        self._last_block = -1
        self._last_id = -1

    def of(self, block_id: int) -> int:
        """The frame id of the next buffer."""
        if self._last_block - block_id > 32768:
            self._base += 65535
        self._last_block = block_id
        self._last_id = self._base + block_id
        return self._last_id

    def restart(self) -> None:
        """Grabbing starts anew; the device's counter too."""
        self._base = self._last_id + 1
        self._last_block = -1


class CameraSettings:
    """Writes a configuration to an opened camera that does not grab, and verifies it."""

    def __init__(self, camera: Any, config: PylonConfig) -> None:
        """Nothing is written yet."""
        self._camera = camera
        self._config = config
        self.pixel_format = ""
        """As read back."""
        self.facts: dict[str, float | int | str] = {}
        """exposure_us and gain as read back, for each frame."""

    def apply(self) -> None:
        """Settings file, then what the configuration adds, then the trigger.

        Raises:
            CameraSettingsError: a setting was refused or reads back differently.
        """
        config = self._config
        if config.settings_file is not None:
            self._load_file()
        if config.pixel_format:
            self._set("PixelFormat", config.pixel_format)
        self.pixel_format = self._camera.PixelFormat.Value
        if self.pixel_format not in TO_RGB:
            raise CameraSettingsError(
                f"{config.camera_id}: pixel format {self.pixel_format} is not read here; "
                f"set `pixel_format` to one of {', '.join(TO_RGB)}"
            )
        self._set_region()
        if config.exposure_us:
            self._switch_off("ExposureAuto")
            self._set(self._first_of("ExposureTimeAbs", "ExposureTime"), config.exposure_us, within=0.01)
        if config.gain_db is not None:
            self._switch_off("GainAuto")
            gain = self._first_of("Gain", "GainRaw")
            self._set(gain, config.gain_db if gain == "Gain" else round(config.gain_db), within=0.1)
        if config.image_folder is not None:
            self._show_files()
        self._set("TriggerSelector", "FrameStart")
        self._set("TriggerMode", "On")
        self._set("TriggerSource", config.trigger_source)
        for fact, names in (
            ("exposure_us", ("ExposureTimeAbs", "ExposureTime")),
            ("gain_db", ("Gain",)),
            ("gain_raw", ("GainRaw",)),
        ):
            for name in names:
                if fact not in self.facts and self._node(name).IsReadable():
                    self.facts[fact] = self._node(name).Value

    def _load_file(self) -> None:
        path = self._config.settings_file
        assert path is not None
        if not path.is_file():
            raise CameraSettingsError(
                f"{self._config.camera_id}: no settings file {path}; correct `settings_file`"
            )
        try:
            pylon.FeaturePersistence.Load(str(path), self._camera.GetNodeMap(), True)
            now = settings_of(pylon.FeaturePersistence.SaveToString(self._camera.GetNodeMap()))
        except genicam.GenericException as error:
            raise CameraSettingsError(
                f"{self._config.camera_id}: settings file {path} refused ({_line(error)}); save it anew from this camera"
            ) from error
        wanted = settings_of(path.read_text(encoding="utf-8"))
        if "PixelFormat" not in wanted and not self._config.pixel_format:
            raise CameraSettingsError(
                f"{self._config.camera_id}: settings file {path} has lost PixelFormat; set `pixel_format`"
            )
        for name, value in wanted.items():
            if not _same(value, now.get(name, "")):
                raise CameraSettingsError(
                    f"{self._config.camera_id}: {name} of settings file {path} should be {value} and reads back "
                    f"{now.get(name, 'nothing')}; save it anew from this camera"
                )

    def _set_region(self) -> None:
        for size, offset, wanted_px in (
            ("Width", "OffsetX", self._config.width_px),
            ("Height", "OffsetY", self._config.height_px),
        ):
            if wanted_px:
                movable = self._node(offset).IsWritable()
                if movable:
                    self._set(offset, 0)  # an old offset limits the size
                self._set(size, wanted_px)
                if movable:
                    node = self._node(offset)
                    self._set(offset, node.Max // 2 // node.Inc * node.Inc)

    def _show_files(self) -> None:
        path = self._config.image_folder
        assert path is not None
        if not path.exists():
            raise CameraSettingsError(
                f"{self._config.camera_id}: no file or folder {path}; correct `image_folder`"
            )
        self._set("TestImageSelector", "Off")
        self._set("ImageFilename", str(path))
        self._set("ImageFileMode", "On")

    def _node(self, name: str) -> Any:
        return getattr(
            self._camera, name
        )  # always there in Python; whether the camera has it, IsWritable says

    def _first_of(self, *names: str) -> str:
        return next((name for name in names if self._node(name).IsWritable()), names[-1])

    def _switch_off(self, name: str) -> None:
        if self._node(name).IsWritable():
            self._set(name, "Off")

    def _set(self, name: str, value: str | float, within: float = 0.0) -> None:
        """Write one setting and read it back; `within`: tolerated difference, relative above 1."""
        node = self._node(name)
        try:
            if not node.IsWritable():
                raise CameraSettingsError(
                    f"{self._config.camera_id}: this camera has no {name} to set to {value}"
                )
            node.Value = value
            actual = node.Value
        except genicam.GenericException as error:
            raise CameraSettingsError(
                f"{self._config.camera_id}: {name} = {value} refused: {_line(error)}"
            ) from error
        same = actual == value
        if within and not same:
            same = abs(float(actual) - float(value)) <= within * max(1.0, abs(float(value)))
        if not same:
            raise CameraSettingsError(
                f"{self._config.camera_id}: {name} was set to {value} and reads back {actual}; use a value it takes"
            )


def settings_of(text: str) -> dict[str, str]:
    """Name (with its selector) -> value of a GenApi persistence file."""
    settings = {}
    for line in text.splitlines():
        if line.strip() and not line.startswith("#"):
            name, _, value = line.rpartition("\t")
            settings[name.strip()] = value.strip()
    return settings


def _same(wanted: str, actual: str) -> bool:
    try:
        return math.isclose(float(wanted), float(actual), rel_tol=1e-4)
    except ValueError:
        return wanted == actual


def _line(error: Exception) -> str:
    """A GenICam message without the place in its C++ source."""
    return str(error).split(" : ")[0].splitlines()[0].strip()
