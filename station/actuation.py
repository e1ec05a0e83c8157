"""The actuation stage: sole owner of the outputs.

A part is on its way to the gate from its trigger on: the gate fires at `reject_delay_ms` unless a PASS has
arrived by then. So a verdict that is late, lost or never made rejects the part, whatever broke.
"""

import heapq
import logging
import threading
import time
from collections.abc import Callable

from drivers.errors import OutputError
from drivers.outputs import RejectGate
from drivers.types import Trigger
from station.stage import Stage
from station.types import Inspection, Verdict

log = logging.getLogger(__name__)


class ActuationStage(Stage):
    """Fires the reject gate, in time, for every part that has not passed."""

    def __init__(
        self,
        gate: RejectGate,
        reject_delay_ms: float,
        on_gate: Callable[[str, str], None],
        on_failure: Callable[[Stage], None],
    ) -> None:
        """Set up; the gate is opened by `start` in this stage's own thread.

        Args:
            gate: the output; only this thread touches it.
            reject_delay_ms: trigger to gate.
            on_gate: told the gate's state (ok or fault) and a text.
            on_failure: told when this stage dies.
        """
        super().__init__("actuation", on_failure)
        self._gate = gate
        self._delay_ns = round(reject_delay_ms * 1e6)
        self._on_gate = on_gate
        self._changed = threading.Condition()
        self._due: list[tuple[int, int]] = []  # (fire at perf_counter_ns, part_seq), a heap
        self._condemned: set[int] = set()  # parts on their way that have not passed
        self._stopping = False
        self._faulty = False
        self.fired = 0
        """Parts rejected by the gate."""

    def expect(self, trigger: Trigger) -> None:
        """A part has been triggered; it will be rejected unless it passes in time."""
        with self._changed:
            self._condemned.add(trigger.part_seq)
            heapq.heappush(self._due, (trigger.triggered_ns + self._delay_ns, trigger.part_seq))
            self._changed.notify()

    def decided(self, inspection: Inspection) -> None:
        """A part has its verdict."""
        if inspection.verdict is Verdict.PASS:
            with self._changed:
                self._condemned.discard(inspection.trigger.part_seq)

    def stop(self) -> None:
        """Fire for the parts still on their way at their time, then close the gate safely. `join` waits for
        that."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def work(self) -> None:
        """Until stopped: wait for the next part at the gate."""
        try:
            self._gate.open()
            self._on_gate("ok", "ready")
            while (part_seq := self._next()) is not None:
                self._reject(part_seq)
        finally:
            self._gate.close()

    def _next(self) -> int | None:
        """The next part to reject, at its time; None when stopped and nothing is on its way."""
        with self._changed:
            while True:
                while self._due and self._due[0][1] not in self._condemned:
                    heapq.heappop(self._due)
                if not self._due:
                    if self._stopping:
                        return None
                    self._changed.wait()
                    continue
                fire_ns, part_seq = self._due[0]
                wait_ns = fire_ns - time.perf_counter_ns()
                if wait_ns <= 0:
                    heapq.heappop(self._due)
                    self._condemned.discard(part_seq)
                    return part_seq
                self._changed.wait(wait_ns / 1e9)

    def _reject(self, part_seq: int) -> None:
        try:
            self._gate.fire()
        except OutputError as error:
            log.error("the gate did not fire for part %d: %s", part_seq, error)
            self._faulty = True
            self._on_gate("fault", str(error))
            return
        self.fired += 1
        if self._faulty:
            self._faulty = False
            self._on_gate("ok", "ready")
