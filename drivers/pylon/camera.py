"""A Basler camera through pypylon. Pylon's camera emulator is the same API.

What bites, and what is done about it:
- Triggers fired while the camera is busy vanish without a trace: `WaitForFrameTriggerReady` comes first.
- A picture that is late for its own part must not be taken for the next one's: a trigger whose predecessor
  was not answered restarts grabbing, which throws away everything in flight.
- Unplugging raises nothing by itself: removal is polled in every slice of a wait.
- A result that is held starves the pool, one that is used after its release corrupts: see `pictures`.
"""

import math
import os
import re
import threading
import time
from typing import Any

from drivers.camera import PictureMemory, private_memory
from drivers.config import PylonConfig
from drivers.errors import CameraError, CameraLost, CameraNotFound, OutputError
from drivers.genapi import FrameIds
from drivers.pylon.api import genicam, line_of, pylon
from drivers.pylon.pictures import Pictures, pictures_of
from drivers.pylon.settings import CameraSettings
from drivers.types import CameraInfo, Grab

EMULATOR_CLASS = "BaslerCamEmu"
_SLICE_MS = 100


class PylonCamera:
    """See the module's docstring and `drivers.camera.Camera`."""

    def __init__(self, config: PylonConfig, memory: PictureMemory = private_memory) -> None:
        """The device is not touched before `open`."""
        self._config = config
        self._memory = memory
        self._camera: Any = None
        self._outputs_lock = (
            threading.Lock()
        )  # user outputs are switched by other threads than the camera's own
        self._pictures: Pictures | None = None
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
            self._pictures = pictures_of(self._camera, settings.pixel_format, self._memory)
            self._facts = settings.facts
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
            raise CameraNotFound(f"{self._name()}: cannot be opened ({line_of(error)})") from error
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
            raise CameraError(f"{self._name()}: trigger failed ({line_of(error)})") from error
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
                    grab = self._grab(result, time.perf_counter_ns())
                    self._unanswered = False
                    return grab
            except genicam.GenericException as error:
                self._raise_if_removed()
                raise CameraError(f"{self._name()}: retrieving failed ({line_of(error)})") from error
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
                    f"{self._name()}: {name} was not switched ({line_of(error)}); check `user_output`"
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
        error = ""
        if not result.GrabSucceeded():
            error = f"buffer failed: {result.GetErrorDescription()} (code 0x{result.GetErrorCode():x})"
        elif not (result.Width and result.Height):  # the last frame of an unplugged camera can have no rows
            error = f"empty image of {result.Width} x {result.Height} px"
        if error:
            result.Release()
            return Grab(frame_id, None, captured_ns, error, facts)
        assert self._pictures is not None, "set by open"
        image_rgb = self._pictures(result)
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
