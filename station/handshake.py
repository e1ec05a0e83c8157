"""The station's side of the handshake, one `step` after another; the signals are described in `drivers.plc`.

A verdict becomes final here: a PASS that the PLC does not acknowledge in time, or while it is lost, is
withdrawn and NOT INSPECTED. Everything comes back by itself as soon as the PLC does.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from drivers.config import ModbusPlcConfig
from drivers.plc import PlcSignals, StationSignals, VerdictCode, next_number, numbers_between
from drivers.types import Trigger
from station.types import Inspection, Reason, Verdict

log = logging.getLogger(__name__)

MAX_MISSED_TRIGGERS = 100  # a wider gap is no count of parts, but another PLC or a program that was changed


class _Offer(NamedTuple):
    inspection: Inspection
    offered_ns: int


class Handshake:
    """State of the conversation. One thread steps; any thread may `offer`."""

    def __init__(
        self,
        config: ModbusPlcConfig,
        session: int,
        deadline_ms: float,
        settle: Callable[[Inspection], Inspection],
        on_trigger: Callable[[bool, int | None], Trigger | None] | None,
    ) -> None:
        """Nothing has been said yet.

        Args:
            config: how long to wait for what.
            session: another number at each start, 0 to 65535.
            deadline_ms: trigger to verdict; a PASS that waits longer to be offered is withdrawn.
            settle: takes each final verdict and returns it as it went down.
            on_trigger: told of each part that the PLC triggers, whether it went by unseen, and its id where
                that is still known; returns the part, or None when it takes none. None where the PLC does
                not trigger.
        """
        self._heartbeat_ns = round(config.heartbeat_ms * 1e6)
        self._acknowledge_ns = round(config.acknowledge_ms * 1e6)
        self._deadline_ns = round(deadline_ms * 1e6)
        self._settle = settle
        self._on_trigger = on_trigger
        self._lock = threading.Lock()
        self._queue: deque[Inspection] = deque()
        self._closed = False
        self._heard: PlcSignals | None = None  # the last that was said, if the conversation is whole
        self._beat: int | None = None
        self._beat_ns = 0
        self._plc_session: int | None = None
        self._was_lost = True
        self._trigger = 0
        self._numbers: dict[int, int] = {}  # part_seq -> the PLC's trigger
        self._offer: _Offer | None = None
        self._overdue = False  # the last result was withdrawn, and its acknowledge is still awaited
        self._said = StationSignals(session=session)
        self.fault = "the PLC has not been heard yet"
        """Why the PLC cannot be counted on; empty when it can."""

    @property
    def encoder(self) -> int | None:
        """The belt's encoder, counts; None while the PLC is lost."""
        return self._heard.encoder if self._heard else None

    @property
    def rejected(self) -> int | None:
        """The PLC's count of parts seen leaving, 0 to 65535; None while it is lost."""
        return self._heard.rejected if self._heard else None

    @property
    def idle(self) -> bool:
        """Whether no verdict waits for the PLC."""
        return self._offer is None and not self._queue

    def offer(self, inspection: Inspection) -> None:
        """Take a verdict to be told to the PLC. Never blocks."""
        with self._lock:
            if not self._closed:
                self._queue.append(inspection)
                return
        self._settle(_withdrawn(inspection, Reason.STOPPED, "the line stopped"))

    def close(self) -> None:
        """Withdraw what waits; whatever is offered from now on is withdrawn at once."""
        with self._lock:
            self._closed = True
        self._withdraw(Reason.STOPPED, "the line stopped")

    def step(self, heard: PlcSignals | str, now_ns: int) -> None:
        """One exchange.

        Args:
            heard: what the PLC says, or why it cannot be read.
            now_ns: `perf_counter_ns`.
        """
        lost = self._lost(heard, now_ns)
        if lost or isinstance(heard, str):
            self._heard, self._was_lost, self.fault = None, True, lost
            self._withdraw(Reason.PLC_LOST, lost)
            return
        if heard.session != self._plc_session:
            if self._plc_session is not None:
                self._withdraw(Reason.PLC_LOST, "the PLC was restarted")
            self._plc_session, self._trigger, self._overdue = heard.session, heard.trigger, False
            # The next result must differ from what an earlier conversation has left behind.
            self._said = replace(self._said, result=heard.acknowledge, confirmed=heard.acknowledge)
        self._heard = heard
        self._take_triggers(heard)
        self._was_lost = False
        self._take_acknowledge(heard, now_ns)
        self.fault = ""
        if self._overdue:
            self.fault = (
                f"result {self._said.result} not acknowledged within {self._acknowledge_ns / 1e6:g} ms"
            )
            self._withdraw(Reason.NOT_ACKNOWLEDGED, self.fault)
        else:
            self._offer_next(now_ns)

    def say(self, *, ready: bool, busy: bool, fault: bool) -> StationSignals:
        """What the station says now; each time with another heartbeat."""
        self._said = replace(
            self._said,
            heartbeat=(self._said.heartbeat + 1) % 65_536,
            ready=ready and not self.fault,
            busy=busy,
            valid=self._offer is not None or self._overdue,
            fault=fault,
        )
        return self._said

    # --- the PLC is there

    def _lost(self, heard: PlcSignals | str, now_ns: int) -> str:
        """Why the PLC cannot be counted on; empty when its heartbeat changes."""
        if isinstance(heard, str):
            return heard
        if heard.heartbeat != self._beat:
            first, self._beat = self._beat is None, heard.heartbeat
            self._beat_ns = now_ns if not first else self._beat_ns
        if not self._beat_ns:
            return "the PLC's heartbeat has not changed yet"
        if now_ns - self._beat_ns > self._heartbeat_ns:
            return f"the PLC's heartbeat stands still for {self._heartbeat_ns / 1e6:g} ms; is it in RUN?"
        return ""

    def _take_triggers(self, heard: PlcSignals) -> None:
        """Each number since the last one is a part; those in between went by unseen."""
        number = numbers_between(self._trigger, heard.trigger)
        if number > MAX_MISSED_TRIGGERS:
            log.error(
                "the PLC's trigger went from %d to %d: not counted as parts", self._trigger, heard.trigger
            )
        elif self._on_trigger:
            for left in range(number - 1, -1, -1):
                self._trigger = next_number(self._trigger)
                part_id = heard.part_id if left == 0 else None
                trigger = self._on_trigger(left > 0 or self._was_lost, part_id)
                if trigger is not None:
                    self._numbers[trigger.part_seq] = self._trigger
        self._trigger = heard.trigger
        self._said = replace(self._said, trigger_taken=heard.trigger)

    # --- results

    def _take_acknowledge(self, heard: PlcSignals, now_ns: int) -> None:
        """In time, the verdict stands, both sides know it; later it is withdrawn, and READY waits for it."""
        if self._offer is not None and now_ns - self._offer.offered_ns > self._acknowledge_ns:
            self._overdue = True
            self._withdraw(Reason.NOT_ACKNOWLEDGED, f"not within {self._acknowledge_ns / 1e6:g} ms")
        if heard.acknowledge != self._said.result:
            return
        self._overdue = False
        if self._offer is not None:
            (inspection, offered_ns), self._offer = self._offer, None
            timings_ms = {**inspection.timings_ms, "handshake": (now_ns - offered_ns) / 1e6}
            inspection = replace(inspection, timings_ms=timings_ms, decided_ns=time.perf_counter_ns())
            if self._final(inspection).verdict is inspection.verdict:
                self._said = replace(self._said, confirmed=self._said.result)

    def _offer_next(self, now_ns: int) -> None:
        while self._offer is None and self._queue:
            inspection = self._queue.popleft()
            waited_ns = now_ns - inspection.trigger.triggered_ns
            if inspection.verdict is Verdict.PASS and waited_ns > self._deadline_ns:
                self._final(_withdrawn(inspection, Reason.DEADLINE, "the PLC takes results too slowly"))
                continue
            part_seq = inspection.trigger.part_seq
            trigger = self._numbers.get(part_seq, 0)
            part_id = inspection.trigger.plc_part_id or 0 if trigger else part_seq
            self._said = replace(
                self._said,
                result=next_number(self._said.result),
                verdict=VerdictCode[inspection.verdict.name],
                part_id=part_id & 0xFFFF_FFFF,
                trigger=trigger,
            )
            self._offer = _Offer(inspection, now_ns)

    def _withdraw(self, reason: Reason, detail: str) -> None:
        """Everything that the PLC does not know of is no PASS."""
        if self._offer is not None:
            inspection, self._offer = self._offer.inspection, None
            self._said = replace(self._said, verdict=VerdictCode.NOT_INSPECTED)
            self._final(_withdrawn(inspection, reason, detail))
        while self._queue:
            self._final(_withdrawn(self._queue.popleft(), reason, detail))

    def _final(self, inspection: Inspection) -> Inspection:
        self._numbers.pop(inspection.trigger.part_seq, None)
        return self._settle(inspection)


def _withdrawn(inspection: Inspection, reason: Reason, detail: str) -> Inspection:
    """The same part, not passed; a part that had not passed keeps its verdict."""
    if inspection.verdict is not Verdict.PASS:
        return inspection
    return replace(
        inspection,
        verdict=Verdict.NOT_INSPECTED,
        reason=reason,
        detail=detail,
        decided_ns=time.perf_counter_ns(),
    )
