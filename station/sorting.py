"""Sorting: what becomes of a part once it is judged. Handshake, gate, rules that hold the line; the lamps.

A verdict is final when the PLC, where there is one, has acknowledged it, and only a PASS that claims its part
before the part is at the gate stays a PASS.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from drivers.camera import Camera
from drivers.config import ModbusPlcConfig, NoOutputConfig
from drivers.outputs import DigitalOutput, create_output
from drivers.plc import create_plc
from drivers.types import Trigger
from station.actuation import ActuationStage
from station.config import StationConfig
from station.plc import LineSignals, PlcStage
from station.reject_stop import RejectStop
from station.stack_light import StackLightStage
from station.stage import Stage
from station.types import Inspection, Reason, Verdict

_HANDSHAKE_STOP_S = 5.0


class Line(Protocol):
    """What sorting needs of the line it belongs to."""

    def settled(self, inspection: Inspection) -> None:
        """Take a final verdict, once a part."""
        ...

    def plc_triggered(self, missed: bool, part_id: int | None) -> Trigger | None:
        """See `Handshake`."""
        ...

    def signals(self) -> LineSignals:
        """What the PLC is told."""
        ...

    def lamps_lit(self) -> frozenset[str]:
        """Which lamps are to be on."""
        ...

    def device(self, name: str, action: str) -> Callable[[str, str], None]:
        """Where a device's state (ok, warn or fault) and a text are told."""
        ...

    def gate_changed(self, state: str, text: str) -> None:
        """The gate's state (ok or fault) and a text."""
        ...

    def hold(self, key: str, title: str, action: str, reason: str) -> None:
        """Alarm, and hold the line until somebody starts it again."""
        ...

    def stage_failed(self, stage: Stage) -> None:
        """A stage has died."""
        ...


class Sorting:
    """Owns the stages behind the verdict."""

    def __init__(self, config: StationConfig, line: Line, camera: Camera, gate: DigitalOutput | None) -> None:
        """Compose the stages; nothing is opened yet.

        Args:
            config: the whole configuration.
            line: the line it belongs to.
            camera: the line's, whose user outputs may be wired.
            gate: instead of the configured one.

        Raises:
            OutputError: an output is configured that this camera does not have.
        """
        self._outputs = config.outputs
        self._line = line
        self.actuation = ActuationStage(
            gate or create_output(config.outputs.reject_gate, camera),
            config.outputs,
            on_gate=line.gate_changed,
            on_unconfirmed=self._unconfirmed,
            on_failure=line.stage_failed,
        )
        lamps = {
            name: create_output(lamp, camera)
            for name, lamp in config.outputs.lamps.items()
            if not isinstance(lamp, NoOutputConfig)
        }
        self._stack_light = StackLightStage(
            lamps,
            lit=line.lamps_lit,
            on_lamps=line.device("stack light", "check the lamps' wiring; the line runs on"),
            on_failure=line.stage_failed,
        )
        self._plc = self._plc_stage(config)
        limits = config.inspection
        self._reject_stop = RejectStop(
            limits.stop_consecutive_rejects, limits.stop_rejects, limits.stop_among
        )

    def _plc_stage(self, config: StationConfig) -> PlcStage | None:
        plc = create_plc(config.plc)
        if plc is None or not isinstance(config.plc, ModbusPlcConfig):
            return None
        line = self._line
        return PlcStage(
            plc=plc,
            config=config.plc,
            deadline_ms=config.inspection.deadline_ms,
            line=line.signals,
            settle=self._settle,
            on_trigger=line.plc_triggered if config.trigger.source == "plc" else None,
            on_counts=self.actuation.plc_read,
            on_plc=line.device("PLC", "check the PLC and its network; parts are rejected until it is back"),
            on_failure=line.stage_failed,
        )

    @property
    def devices(self) -> tuple[str, ...]:
        """Names of the devices without which nothing can pass."""
        return ("gate", "PLC") if self._plc else ("gate",)

    def start(self, start: Callable[[Stage], None]) -> None:
        """Start what is configured. Call it behind the camera, whose outputs may be wired."""
        start(self.actuation)
        if self._stack_light.wired:
            start(self._stack_light)
        if self._plc is not None:
            start(self._plc)

    def stop(self, end: Callable[[Stage, Callable[[], None], float], None]) -> None:
        """No verdict comes any more: the last ones are acknowledged or withdrawn, the last parts sorted.

        Args:
            end: stops a stage that was started, and waits for it so many seconds.
        """
        if self._plc is not None:
            give_up_s = time.monotonic() + _HANDSHAKE_STOP_S
            while self._plc.is_alive() and not self._plc.idle and time.monotonic() < give_up_s:
                time.sleep(0.005)
        travel_s = (self._outputs.reject_delay_ms + self._outputs.stroke_ms) / 1e3
        end(self.actuation, self.actuation.stop, travel_s + 15)
        if self._plc is not None:  # behind the gate, which may follow its encoder
            end(self._plc, self._plc.stop, 5)
        end(self._stack_light, self._stack_light.stop, 5)

    def line_started(self) -> None:
        """Somebody has looked: the rules that hold the line count anew."""
        self._reject_stop.reset()

    def judged(self, inspection: Inspection) -> None:
        """A part was judged. Never blocks."""
        if self._plc is not None:
            self._plc.offer(inspection)
        else:
            self._settle(inspection)

    def _settle(self, inspection: Inspection) -> Inspection:
        """A final verdict, as it goes down: a PASS that comes behind the gate is none."""
        if inspection.verdict is Verdict.PASS and not self.actuation.claim(inspection.trigger.part_seq):
            inspection = replace(
                inspection, verdict=Verdict.NOT_INSPECTED, reason=Reason.GATE_REACHED, detail=""
            )
        self._line.settled(inspection)
        if why := self._reject_stop.decided(inspection.verdict):
            action = "find the cause, then start the line again"
            self._line.hold("reject-stop", f"STOPPED: {why.upper()}", action, why)
        return inspection

    def _unconfirmed(self, part_seq: int) -> None:
        """A rejected part that was not seen leaving may lie among the good ones."""
        why = f"part {part_seq} was rejected and not seen leaving"
        action = "find the part, check gate and sensor, then start the line again"
        self._line.hold("reject-confirm", why.upper(), action, why)
