"""Digital outputs: a reject gate, the lamps of a stack light.

One thread is the only caller of an output. An output is off after `open` and after `close`.
"""

import threading
import time
from collections import deque
from typing import Protocol, runtime_checkable

from drivers.camera import Camera
from drivers.config import (
    CameraOutputConfig,
    ModbusOutputConfig,
    NoOutputConfig,
    OutputConfig,
    SimulatedOutputConfig,
)
from drivers.errors import OutputError

REMEMBERED = 1000


class DigitalOutput(Protocol):
    """One wire that is on or off."""

    def open(self) -> None:
        """Take hold of the output and switch it off.

        Raises:
            OutputError: it is not there or cannot be written.
        """
        ...

    def write(self, on: bool) -> None:
        """Switch now, and return when the device has taken it. An output that failed is reached for anew.

        Raises:
            OutputError: the output did not take its value, or is not open.
        """
        ...

    def close(self) -> None:
        """Switch off and let go. Never raises; any number of times."""
        ...


@runtime_checkable
class UserOutputs(Protocol):
    """A camera that has user outputs."""

    def write_user_output(self, name: str, on: bool) -> None:
        """Switch one of them. Any thread may call it.

        Raises:
            OutputError: the camera is not open, has no such output, or did not take the value.
        """
        ...


class NoOutput:
    """Nothing is wired."""

    def open(self) -> None:
        """Nothing to open."""

    def write(self, on: bool) -> None:
        """Nothing to switch."""

    def close(self) -> None:
        """Nothing to close."""


class SimulatedOutput:
    """Remembers when it was switched on. Any thread may look at it."""

    def __init__(self) -> None:
        """Off and closed."""
        self._lock = threading.Lock()
        self._is_open = False
        self._is_on = False
        self._on_ns: deque[int] = deque(maxlen=REMEMBERED)
        self._count = 0

    def open(self) -> None:
        """Ready; what was before stays remembered."""
        with self._lock:
            self._is_open, self._is_on = True, False

    def write(self, on: bool) -> None:
        """Switch; each `on` is remembered, also one that finds the output on.

        Raises:
            OutputError: it is not open.
        """
        with self._lock:
            if not self._is_open:
                raise OutputError("simulated output: closed, it was not switched; open it first")
            self._is_on = on
            if on:
                self._on_ns.append(time.perf_counter_ns())
                self._count += 1

    def close(self) -> None:
        """Off; `write` raises from now on."""
        with self._lock:
            self._is_open, self._is_on = False, False

    @property
    def is_on(self) -> bool:
        """Its level."""
        with self._lock:
            return self._is_on

    @property
    def count(self) -> int:
        """How often it was switched on since it was made."""
        with self._lock:
            return self._count

    @property
    def on_ns(self) -> tuple[int, ...]:
        """`perf_counter_ns` of the last times it was switched on, oldest first, at most REMEMBERED."""
        with self._lock:
            return tuple(self._on_ns)


class CameraOutput:
    """A user output of the line's camera. The camera is opened by its own stage, before and after."""

    def __init__(self, camera: UserOutputs, name: str) -> None:
        """Nothing is switched yet.

        Args:
            camera: the line's.
            name: the camera's name for the output.
        """
        self._camera = camera
        self._name = name

    def open(self) -> None:
        """Switch it off.

        Raises:
            OutputError: see `UserOutputs.write_user_output`.
        """
        self._camera.write_user_output(self._name, False)

    def write(self, on: bool) -> None:
        """Switch it.

        Raises:
            OutputError: see `UserOutputs.write_user_output`.
        """
        self._camera.write_user_output(self._name, on)

    def close(self) -> None:
        """Switch it off, if the camera is still there."""
        try:
            self._camera.write_user_output(self._name, False)
        except OutputError:
            return  # a camera that has gone has nothing to switch


def create_output(config: OutputConfig, camera: Camera) -> DigitalOutput:
    """The output for its configuration; pymodbus is imported only for `ModbusOutputConfig`.

    Raises:
        OutputError: the camera has no user outputs.
    """
    match config:
        case NoOutputConfig():
            return NoOutput()
        case SimulatedOutputConfig():
            return SimulatedOutput()
        case CameraOutputConfig():
            if not isinstance(camera, UserOutputs):
                raise OutputError(
                    f"{config.user_output}: this camera has no user outputs; use another driver"
                )
            return CameraOutput(camera, config.user_output)
        case ModbusOutputConfig():
            from drivers.modbus import ModbusOutput

            return ModbusOutput(config)
