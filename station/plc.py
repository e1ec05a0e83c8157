"""The plc stage: sole caller of the PLC. One exchange of signals a cycle, and at once for a verdict."""

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from drivers.config import ModbusPlcConfig
from drivers.errors import PlcError
from drivers.plc import Plc, PlcSignals
from drivers.types import Trigger
from station.handshake import Handshake
from station.stage import Stage
from station.types import Inspection

log = logging.getLogger(__name__)

_RETRY_S = 0.25
_SENSOR_RANGE = 1 << 16


class LineSignals(NamedTuple):
    """What the PLC is told of the line."""

    ready: bool
    busy: bool
    fault: bool


class PlcStage(Stage):
    """One thread between the line and its PLC."""

    def __init__(
        self,
        *,
        plc: Plc,
        config: ModbusPlcConfig,
        deadline_ms: float,
        line: Callable[[], LineSignals],
        settle: Callable[[Inspection], Inspection],
        on_trigger: Callable[[bool, int | None], Trigger | None] | None,
        on_counts: Callable[[int | None, int], None],
        on_plc: Callable[[str, str], None],
        on_failure: Callable[[Stage], None],
    ) -> None:
        """Set up; `start()` reaches for the PLC, and the line runs, rejecting, until it is there.

        Args:
            plc: only this thread touches it.
            config: cycle and patience.
            deadline_ms: trigger to verdict.
            line: says what the PLC is to know of the line.
            settle: takes each verdict once it is final and returns it as it went down.
            on_trigger: see `Handshake`.
            on_counts: told, each cycle, the belt's encoder (None = unknown) and how many parts left since.
            on_plc: told the PLC's state (ok, warn or fault) and a text when they change.
            on_failure: told when this stage dies.
        """
        super().__init__("plc", on_failure)
        self._plc = plc
        self._cycle_s = config.cycle_ms / 1e3
        self._grace_s = config.heartbeat_ms / 1e3
        self._line = line
        self._on_counts = on_counts
        self._on_plc = on_plc
        self._handshake = Handshake(config, time.time_ns() // 10**6 % 65_536, deadline_ms, settle, on_trigger)
        self._wake = threading.Event()
        self._stopping = False
        self._said = ("", "")
        self._rejected: int | None = None

    def offer(self, inspection: Inspection) -> None:
        """Take a verdict; it is final when the PLC has acknowledged it, or is withdrawn. Never blocks."""
        self._handshake.offer(inspection)
        self._wake.set()

    @property
    def idle(self) -> bool:
        """Whether no verdict waits for the PLC."""
        return self._handshake.idle

    def stop(self) -> None:
        """Say that the station is not ready any more, and end."""
        self._stopping = True
        self._wake.set()

    def work(self) -> None:
        """Until stopped: one exchange after another."""
        self._grace_s += time.monotonic()
        try:
            while not self._stopping:
                self.beat()
                reached = self._exchange()
                self._tell()
                # A verdict is told at once, but a PLC that does not answer is left alone for a while.
                if reached:
                    self._wake.wait(self._cycle_s)
                    self._wake.clear()
                else:
                    time.sleep(_RETRY_S)
        finally:
            self._handshake.close()
            self._farewell()

    def _exchange(self) -> bool:
        """Read, think, write; whether the PLC could be reached."""
        heard: PlcSignals | str
        try:
            heard = self._plc.read()
        except PlcError as error:
            heard = str(error)
        self._handshake.step(heard, time.perf_counter_ns())
        self._count()
        if isinstance(heard, str):
            return False
        try:
            self._plc.write(self._handshake.say(**self._line()._asdict()))
        except PlcError as error:
            self._handshake.step(str(error), time.perf_counter_ns())
            self._count()
            return False
        return True

    def _count(self) -> None:
        """Encoder and sensor to those who follow the parts; what left during an outage confirms nothing."""
        rejected, before = self._handshake.rejected, self._rejected
        self._rejected = rejected
        left = 0 if rejected is None or before is None else (rejected - before) % _SENSOR_RANGE
        self._on_counts(self._handshake.encoder, left)

    def _tell(self) -> None:
        """The PLC's state, when it changes; at the start it has time to be heard before that is a fault."""
        fault = self._handshake.fault
        starting = self._said[0] in ("", "warn") and time.monotonic() < self._grace_s
        said = ("warn" if starting else "fault", fault) if fault else ("ok", "shaking hands")
        if said != self._said:
            log.log(logging.ERROR if said[0] == "fault" else logging.INFO, "PLC: %s", said[1])
            self._said = said
            self._on_plc(*said)

    def _farewell(self) -> None:
        if not self._handshake.fault:
            try:
                self._plc.write(self._handshake.say(ready=False, busy=False, fault=False))
            except PlcError as error:
                log.warning("the PLC was not told that the station stops: %s", error)
        self._plc.close()
