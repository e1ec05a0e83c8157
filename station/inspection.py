"""The inspection stage: feeds the worker, keeps every part's deadline, decides.

It is the only place where a part gets its verdict. Whatever happens to the worker, each part that arrives
here leaves with one: a result within its deadline is judged by the limits of the model it was sent to,
everything else is NOT_INSPECTED with its reason. How a worker is kept running stands in `workers`.
"""

import math
import selectors
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drivers.types import Frame, Trigger
from station.decision import decide
from station.mailbox import Mailbox
from station.regions import find_regions
from station.sections import InspectionSection
from station.slab import SLOTS, Slab
from station.stage import Stage
from station.types import Inspection, Reason, Verdict
from station.worker_link import Sent, Worker
from station.worker_wire import Answer, Model, Result
from station.workers import BadAnswer, Workers
from varad_core.types import AnomalyResult

_PARTS_AT_ONCE = SLOTS // 2  # one part in the worker, the next one waiting at its door
_MAX_WAIT_S = 0.25


@dataclass(frozen=True, slots=True)
class Missed:
    """A part that was triggered and has no usable image."""

    trigger: Trigger
    reason: Reason
    detail: str = ""


Arrival = Frame | Missed


def is_missed(arrival: Arrival) -> bool:
    """Whether an arrival carries no pixels; such ones are never turned away from the queue."""
    return isinstance(arrival, Missed)


class InspectionStage(Stage):
    """One thread between acquisition's mailbox and the readers of verdicts."""

    def __init__(
        self,
        *,
        inbox: Mailbox[Arrival],
        slab: Slab,
        command: Sequence[str],
        config: InspectionSection,
        emit: Callable[[Inspection], None],
        on_worker: Callable[[str, str], None],
        on_failure: Callable[[Stage], None],
    ) -> None:
        """Set up; `start()` starts the thread and the worker.

        Args:
            inbox: parts as they come from acquisition.
            slab: the memory shared with the worker.
            command: starts a worker, see `worker_link`.
            config: deadlines and restart limits.
            emit: takes each verdict, once a part, in this thread; must not block.
            on_worker: see `Workers`.
            on_failure: told when this stage dies.
        """
        super().__init__("inspection", on_failure)
        self._inbox = inbox
        self._slab = slab
        self._config = config
        self._emit = emit
        self._service_ns = 0.0  # what one part takes in the worker, a running mean
        self._stopping = threading.Event()
        self.workers = Workers(command, slab, config, on_state=on_worker, on_lost=self._worker_lost)

    def stop(self) -> None:
        """Decide what is waiting, then end. Call it when no more parts can arrive, then `join`."""
        self._stopping.set()
        self._inbox.wake()

    # --- the loop

    def work(self) -> None:
        """Until `stop`: wait, read the workers, expire, feed."""
        try:
            self.workers.start()
            while not (self._stopping.is_set() and not self._sent() and not len(self._inbox)):
                self.beat()
                self._wait()
                self.workers.receive(self._answered)
                self._expire()
                self.workers.watch(may_start=not self._stopping.is_set())
                self._feed()
        finally:
            self._close()

    def _sent(self) -> list[Sent]:
        return [sent for worker in self.workers.all() for sent in worker.parts.values()]

    def _wait(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._inbox, selectors.EVENT_READ)
            for worker in self.workers.all():
                selector.register(worker.link, selectors.EVENT_READ)
            selector.select(self._wait_s())
        self._inbox.clear()

    def _wait_s(self) -> float:
        wait_s = _MAX_WAIT_S
        pending = [sent.frame.trigger for sent in self._sent() if not sent.decided]
        if head := self._inbox.peek():
            pending.append(head.trigger)
        for trigger in pending:
            wait_s = min(wait_s, (self._deadline_ns(trigger) - time.perf_counter_ns()) / 1e9)
        return max(wait_s, 0.0)

    def _deadline_ns(self, trigger: Trigger) -> int:
        return trigger.triggered_ns + round(self._config.deadline_ms * 1e6)

    # --- parts

    def _feed(self) -> None:
        """Take parts from the inbox while something can be done with them."""
        while arrival := self._inbox.peek():
            worker = self.workers.serving
            if isinstance(arrival, Missed):
                self._inbox.pop()
                self._not_inspected(arrival, arrival.reason, arrival.detail, self.workers.model)
            elif worker is None or worker.model is None:
                if not self.workers.settled.is_set() and not self._stopping.is_set():
                    return  # the line has not been told to run yet
                self._inbox.pop()
                self._not_inspected(arrival, Reason.WORKER_DOWN, "no model is ready", None)
            elif len(worker.parts) < _PARTS_AT_ONCE:
                self._inbox.pop()
                if len(self._inbox) and self._is_too_late(arrival, worker):
                    # Overload: inspecting this one would only make the next ones late as well.
                    self._not_inspected(arrival, Reason.DEADLINE, "the worker does not keep up", worker.model)
                else:
                    self._send(arrival, worker)
            else:
                return

    def _is_too_late(self, frame: Frame, worker: Worker) -> bool:
        """Whether a part could not be judged within its deadline behind those in the worker."""
        expected_ns = (len(worker.parts) + 1) * self._service_ns
        return time.perf_counter_ns() + expected_ns > self._deadline_ns(frame.trigger)

    def _send(self, frame: Frame, worker: Worker) -> None:
        taken = {slot for other in self.workers.all() for slot in other.parts}
        slot = next(slot for slot in range(SLOTS) if slot not in taken)
        room = self._slab.room_of(frame.image_rgb)
        if room is None:
            room = slot
            try:
                self._slab.image(room, *frame.image_rgb.shape[:2])[:] = frame.image_rgb
            except ValueError as error:
                self._not_inspected(frame, Reason.WRONG_SIZE, str(error), worker.model)
                return
        if not worker.send(frame, slot, room):
            self._not_inspected(frame, Reason.WORKER_DOWN, "the worker takes no messages", worker.model)

    def _expire(self) -> None:
        """Parts whose deadline has passed get their verdict now, wherever they are."""
        now_ns = time.perf_counter_ns()
        for worker in self.workers.all():
            for sent in worker.parts.values():
                if not sent.decided and self._deadline_ns(sent.frame.trigger) <= now_ns:
                    sent.decided = True  # its slot stays taken until the worker lets go of it
                    self._too_late(sent.frame, worker.model)
        while (
            (head := self._inbox.peek())
            and isinstance(head, Frame)
            and self._deadline_ns(head.trigger) <= now_ns
        ):
            self._inbox.pop()
            self._too_late(head, self.workers.model)

    def _too_late(self, frame: Frame, model: Model | None) -> None:
        self._not_inspected(
            frame, Reason.DEADLINE, f"no verdict within {self._config.deadline_ms:g} ms", model
        )

    def _judge(self, sent: Sent, answer: Result, anomaly_map: NDArray[np.float32], model: Model) -> None:
        now_ns = time.perf_counter_ns()
        frame = sent.frame
        if self._deadline_ns(frame.trigger) <= now_ns:
            self._too_late(frame, model)
            return
        finite = bool(np.isfinite(anomaly_map).all())
        verdict, reason = decide(answer.score if finite else math.nan, model.limits)
        timings_ms = {
            "grab": (frame.captured_ns - frame.trigger.triggered_ns) / 1e6,
            "queue": (sent.sent_ns - frame.captured_ns) / 1e6,
            "detect": (now_ns - sent.sent_ns) / 1e6,
            **answer.timings_ms,
        }
        self._emit(
            Inspection(
                trigger=frame.trigger,
                frame=frame,
                result=AnomalyResult(answer.score, anomaly_map, answer.timings_ms, answer.conditions),
                verdict=verdict,
                reason=reason,
                detail="" if finite else "the anomaly map is not finite",
                limits=model.limits,
                model_id=model.model_id,
                decided_ns=now_ns,
                timings_ms=timings_ms,
                regions=() if verdict is Verdict.PASS else find_regions(anomaly_map, model.limits.recheck),
            )
        )

    def _not_inspected(self, part: Arrival, reason: Reason, detail: str, model: Model | None) -> None:
        self._emit(
            Inspection(
                trigger=part.trigger,
                frame=None if isinstance(part, Missed) else part,
                result=None,
                verdict=Verdict.NOT_INSPECTED,
                reason=reason,
                detail=detail,
                limits=model.limits if model else None,
                model_id=model.model_id if model else "",
                decided_ns=time.perf_counter_ns(),
            )
        )

    # --- the worker's answers

    def _answered(self, worker: Worker, answer: Answer) -> None:
        """See `Workers.receive`."""
        sent = worker.parts.get(answer.slot)
        if sent is None or worker.model is None or sent.frame.trigger.part_seq != answer.part_seq:
            raise BadAnswer(f"the worker answered for part {answer.part_seq}, which it was not given")
        if isinstance(answer, Result):
            try:
                anomaly_map = self._slab.anomaly_map(answer.slot, answer.map_height, answer.map_width).copy()
            except ValueError as error:
                raise BadAnswer(f"the worker's map cannot be used: {error}") from error
        taken_ns = time.perf_counter_ns() - worker.progress_ns  # since it was sent, or the last answer
        self._service_ns += 0.25 * (taken_ns - self._service_ns)
        if not sent.decided:
            if isinstance(answer, Result):
                self._judge(sent, answer, anomaly_map, worker.model)
            else:
                self._not_inspected(sent.frame, Reason.WORKER_ERROR, answer.message, worker.model)
        del worker.parts[answer.slot]

    def _worker_lost(self, worker: Worker, why: str) -> None:
        self._reject(worker, Reason.WORKER_DOWN, why)

    def _reject(self, worker: Worker, reason: Reason, why: str) -> None:
        """Whatever is in a worker has no verdict, and gets none any more."""
        for sent in worker.parts.values():
            if not sent.decided:
                self._not_inspected(sent.frame, reason, why, worker.model)
        worker.parts.clear()

    def _close(self) -> None:
        """Whatever ended this stage: no part stays without a verdict, no worker stays alive."""
        for worker in self.workers.all():
            self._reject(worker, Reason.STOPPED, "the line stopped")
        self.drain()
        self.workers.close()

    def drain(self) -> None:
        """Decide everything still in the inbox as stopped. Only for this stage, or after its thread has
        ended."""
        while arrival := self._inbox.pop():
            self._not_inspected(arrival, Reason.STOPPED, "the line stopped", self.workers.model)
