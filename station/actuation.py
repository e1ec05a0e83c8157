"""The actuation stage: sole owner of the reject gate.

A part is on its way to the gate from its trigger on, by time or by the belt's encoder. Only a PASS that was
claimed before the part is there opens the good lane; a verdict that is late, lost or never made rejects it.

The gate acts on passed parts (at rest it rejects: fail-safe) or on rejected ones (an ejector).
"""

import logging
import threading
import time
from collections.abc import Callable

from drivers.errors import OutputError
from drivers.outputs import DigitalOutput
from drivers.types import Trigger
from station.reject_confirm import RejectConfirm
from station.sections import OutputsSection
from station.stage import LONGEST_WAIT_S, Stage
from station.tracking import Arrival, Encoder, PartTracking

log = logging.getLogger(__name__)

_RETRY_NS = 250_000_000
_BELT_STOP_S = 10.0  # at stop, parts on a belt that may stand still are waited for so long


class ActuationStage(Stage):
    """Moves the gate, in time, for every part."""

    def __init__(
        self,
        gate: DigitalOutput,
        config: OutputsSection,
        on_gate: Callable[[str, str], None],
        on_unconfirmed: Callable[[int], None],
        on_failure: Callable[[Stage], None],
    ) -> None:
        """Set up; the gate is opened by `start` in this stage's own thread.

        Args:
            gate: the output; only this thread touches it.
            config: where the gate is and how it acts.
            on_gate: told the gate's state (ok or fault) and a text.
            on_unconfirmed: told of a part that was rejected and not seen leaving.
            on_failure: told when this stage dies.
        """
        super().__init__("actuation", on_failure)
        self._gate = gate
        self._by_time = config.tracking == "time"
        self._acts_on_pass = config.gate_acts_on == "pass"
        self._stroke_ns = round(config.stroke_ms * 1e6)
        self._on_gate = on_gate
        self._on_unconfirmed = on_unconfirmed
        self._changed = threading.Condition()
        travel = round(config.reject_delay_ms * 1e6) if self._by_time else config.reject_counts
        self._tracking = PartTracking(travel, time.perf_counter_ns() if self._by_time else None)
        self._encoder = Encoder(max(travel, 1))
        self._position: int | None = None  # the belt's, where it is tracked by encoder
        self._confirm = RejectConfirm(round(config.reject_confirm_ms * 1e6))
        self._stop_s: float | None = None
        self._is_on: bool | None = False  # None: the last switching failed, nobody knows
        self._stroke_until_ns = 0
        self._retry_ns = 0
        self.opened = threading.Event()
        """Set once the gate is open, or cannot be opened."""
        self.open_error: OutputError | None = None
        self.rejected = 0
        """Parts sent to the reject lane."""

    # --- called by other threads

    def expect(self, trigger: Trigger) -> None:
        """A part has been triggered; it will be rejected unless it passes in time."""
        with self._changed:
            self._tracking.expect(trigger.part_seq, trigger.triggered_ns if self._by_time else self._position)
            self._changed.notify()

    def claim(self, part_seq: int) -> bool:
        """Let a part pass. False when it has reached the gate, or its place is lost: it is rejected."""
        with self._changed:
            return self._tracking.claim(part_seq)

    def plc_read(self, encoder: int | None, left: int) -> None:
        """What the PLC has counted: the belt's encoder (None = unknown), and parts that left since then."""
        with self._changed:
            self._confirm.seen(left)
            if not self._by_time:
                self._position = self._encoder.read(encoder)
                if self._position is None:
                    self._tracking.advance(None)
            self._changed.notify()

    def stop(self) -> None:
        """Sort the parts still on their way at their time, then close the gate. `join` waits for that, where
        they are followed by encoder at most 10 s."""
        with self._changed:
            self._stop_s = time.monotonic()
            self._changed.notify()

    # --- this stage's thread

    def work(self) -> None:
        """Until stopped: wait for the next part at the gate, or the end of a stroke."""
        try:
            self._gate.open()
        except OutputError as error:
            self.open_error = error
            self._gate.close()
            return
        finally:
            self.opened.set()
        try:
            self._on_gate("ok", "ready")
            while (step := self._next()) is not None:
                arrivals, unconfirmed = step
                for arrival in arrivals:
                    self._sort(arrival)
                with self._changed:
                    blocked = self._tracking.blocked
                now_ns = time.perf_counter_ns()
                if now_ns >= self._retry_ns:
                    self._switch(self._level(now_ns, blocked), "it does not follow")
                if unconfirmed is not None:
                    self._on_unconfirmed(unconfirmed)
        finally:
            self._gate.close()

    def _next(self) -> tuple[list[Arrival], int | None] | None:
        """Wait until something is to be done: parts at the gate, another level, or a reject that was not seen
        leaving. None when stopped and nothing is on its way."""
        with self._changed:
            while True:
                self.beat()
                now_ns = time.perf_counter_ns()
                arrivals = self._tracking.advance(now_ns if self._by_time else self._position)
                unconfirmed = self._confirm.overdue(now_ns)
                to_switch = (
                    self._level(now_ns, self._tracking.blocked) != self._is_on and now_ns >= self._retry_ns
                )
                if arrivals or to_switch or unconfirmed is not None:
                    return arrivals, unconfirmed
                if self._stop_s is not None and self._may_end():
                    return None
                self._changed.wait(self._wait_s(now_ns))

    def _level(self, now_ns: int, blocked: bool) -> bool:
        """What the output should be: rejecting while blocked, else on during a stroke."""
        return not self._acts_on_pass if blocked else now_ns < self._stroke_until_ns

    def _may_end(self) -> bool:
        assert self._stop_s is not None
        if self._tracking.next_due is None:
            return not self._is_on or self._tracking.blocked
        return not self._by_time and time.monotonic() - self._stop_s > _BELT_STOP_S

    def _wait_s(self, now_ns: int) -> float:
        later_ns = [until for until in (self._stroke_until_ns, self._retry_ns) if until > now_ns]
        later_ns.append(now_ns + round(LONGEST_WAIT_S * 1e9))
        if self._confirm.next_due_ns is not None:
            later_ns.append(self._confirm.next_due_ns)
        if self._by_time and self._tracking.next_due is not None:
            later_ns.append(self._tracking.next_due)
        if self._stop_s is not None:
            later_ns.append(now_ns + _RETRY_NS)
        return max(0, min(later_ns) - now_ns) / 1e9

    def _sort(self, arrival: Arrival) -> None:
        """One part into its lane."""
        on = arrival.passed == self._acts_on_pass
        self._stroke_until_ns = time.perf_counter_ns() + self._stroke_ns if on else 0
        lane = "the good lane" if arrival.passed else "the reject lane"
        if (
            self._switch(on, f"part {arrival.part_seq} was not sent to {lane}", again=on)
            and not arrival.passed
        ):
            self.rejected += 1
            with self._changed:
                self._confirm.rejected(arrival.part_seq, time.perf_counter_ns())

    def _switch(self, on: bool, otherwise: str, again: bool = False) -> bool:
        """Bring the output to a level; when it does not take it, say what that means, and try again soon."""
        if on == self._is_on and not again:
            return True
        was_faulty = self._is_on is None
        try:
            self._gate.write(on)
        except OutputError as error:
            log.error("reject gate: %s: %s", otherwise, error)
            self._is_on = None
            self._retry_ns = time.perf_counter_ns() + _RETRY_NS
            self._on_gate("fault", f"{otherwise}: {error}")
            return False
        self._is_on = on
        if was_faulty:
            self._on_gate("ok", "ready")
        return True
