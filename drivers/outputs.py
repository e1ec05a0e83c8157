"""Reject gates. One thread, actuation, is the only caller; `close` leaves the gate at rest."""

import threading
import time
from collections import deque
from typing import Protocol

from drivers.config import GateConfig, NoGateConfig, SimulatedGateConfig
from drivers.errors import OutputError

REMEMBERED_FIRINGS = 1000


class RejectGate(Protocol):
    """Pushes one part off the line at each `fire`."""

    def open(self) -> None:
        """Take hold of the output and put the gate at rest.

        Raises:
            OutputError: the output is not there or cannot be written.
        """
        ...

    def fire(self) -> None:
        """One stroke, now. Does not wait for the stroke to end.

        Raises:
            OutputError: the output did not take its value, or is not open. The part was NOT rejected.
        """
        ...

    def close(self) -> None:
        """Put the gate at rest and let go of it. Never raises; any number of times."""
        ...


class NoGate:
    """No gate on this line: the verdict goes to the screen, the record and the PLC only."""

    def open(self) -> None:
        """Nothing to open."""

    def fire(self) -> None:
        """Nothing to fire."""

    def close(self) -> None:
        """Nothing to close."""


class SimulatedGate:
    """Remembers when it fired."""

    def __init__(self) -> None:
        """At rest and closed."""
        self._lock = threading.Lock()
        self._is_open = False
        self._fired_ns: deque[int] = deque(maxlen=REMEMBERED_FIRINGS)
        self._count = 0

    def open(self) -> None:
        """Ready to fire; earlier firings stay remembered."""
        with self._lock:
            self._is_open = True

    def fire(self) -> None:
        """Note the time.

        Raises:
            OutputError: the gate is not open.
        """
        with self._lock:
            if not self._is_open:
                raise OutputError(
                    "simulated reject gate: fire on a closed gate, the part was not rejected; open it first"
                )
            self._fired_ns.append(time.perf_counter_ns())
            self._count += 1

    def close(self) -> None:
        """At rest; `fire` raises from now on."""
        with self._lock:
            self._is_open = False

    @property
    def count(self) -> int:
        """Strokes since it was made."""
        with self._lock:
            return self._count

    @property
    def fired_ns(self) -> tuple[int, ...]:
        """`perf_counter_ns` of the last strokes, oldest first, at most REMEMBERED_FIRINGS."""
        with self._lock:
            return tuple(self._fired_ns)


def create_gate(config: GateConfig) -> RejectGate:
    """The reject gate for its configuration."""
    match config:
        case SimulatedGateConfig():
            return SimulatedGate()
        case NoGateConfig():
            return NoGate()
