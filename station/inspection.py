"""The inspection stage: feeds the worker, keeps every part's deadline, decides.

It is the only place where a part gets its verdict. Whatever happens to the worker, each part that arrives
here leaves with one: a result within its deadline is judged by the limits, everything else is NOT_INSPECTED
with its reason.
"""

import logging
import math
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from drivers.types import Frame, Trigger
from station.decision import decide
from station.mailbox import Mailbox
from station.regions import find_regions
from station.sections import InspectionSection
from station.slab import Slab
from station.stage import Stage
from station.types import Inspection, Reason, Verdict
from station.worker_link import Hangup, WorkerLink
from station.worker_messages import Failed, Ready, Refused, Result
from varad_core.types import AnomalyResult, Limits

log = logging.getLogger(__name__)

SLOTS = 2  # one part in the worker, the next one waiting at its door
_MAX_WAIT_S = 0.25
_MAX_BACKOFF_S = 5.0
_STABLE_S = 30.0
_HOUR_S = 3600.0


class WorkerFault(Exception):
    """The worker cannot be kept running."""


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


@dataclass(frozen=True, slots=True)
class Model:
    """What the worker said of itself when it became ready."""

    model_id: str
    model_name: str
    limits: Limits


@dataclass(slots=True)
class _Sent:
    """A part in the worker."""

    frame: Frame
    sent_ns: int
    decided: bool = False


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
            slab: shared memory, `SLOTS` slots.
            command: starts a worker, see `worker_link`.
            config: deadlines and restart limits.
            emit: takes each verdict, once a part, in this thread; must not block.
            on_worker: told the worker's state (ok, warn or fault) and a text when they change.
            on_failure: told when this stage dies.
        """
        super().__init__("inspection", on_failure)
        self._inbox = inbox
        self._slab = slab
        self._command = list(command)
        self._config = config
        self._emit = emit
        self._on_worker = on_worker
        self._link: WorkerLink | None = None
        self._link_started_s = 0.0
        self._sent: dict[int, _Sent] = {}  # by slot
        self._last_progress_ns = 0
        self._service_ns = 0.0  # what one part takes in the worker, a running mean
        self._restarts_s: deque[float] = deque()
        self._backoff_s = 0.0
        self._start_again_s = 0.0
        self._stopping = threading.Event()
        self.settled = threading.Event()
        """Set once the first worker is ready, or cannot be."""
        self.model: Model | None = None
        """The model that is ready; None while there is none."""
        self.restarts = 0
        """How often a worker that had been ready was lost."""
        self.start_error = ""
        """Why the first worker could not start."""

    @property
    def worker_pid(self) -> int | None:
        """Process id of the current worker."""
        link = self._link
        return link.pid if link else None

    def stop(self) -> None:
        """Decide what is waiting, then end. Call it when no more parts can arrive, then `join`."""
        self._stopping.set()
        self._inbox.wake()

    # --- the loop

    def work(self) -> None:
        """Until `stop`: wait, read the worker, expire, feed."""
        try:
            self._start_worker()
            while not (self._stopping.is_set() and not self._sent and not len(self._inbox)):
                self.beat()
                self._wait()
                self._read_worker()
                self._expire()
                self._watch_worker()
                self._feed()
        finally:
            self._close()

    def _wait(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._inbox, selectors.EVENT_READ)
            if self._link:
                selector.register(self._link, selectors.EVENT_READ)
            selector.select(self._wait_s())
        self._inbox.clear()

    def _wait_s(self) -> float:
        wait_s = _MAX_WAIT_S
        pending = [sent.frame.trigger for sent in self._sent.values() if not sent.decided]
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
            if isinstance(arrival, Missed):
                self._inbox.pop()
                self._not_inspected(arrival.trigger, None, arrival.reason, arrival.detail)
            elif self.model is None or self._link is None:
                if not self.settled.is_set() and not self._stopping.is_set():
                    return  # the line has not been told to run yet
                self._inbox.pop()
                self._not_inspected(arrival.trigger, arrival, Reason.WORKER_DOWN, "no model is ready")
            elif len(self._sent) < SLOTS:
                self._inbox.pop()
                if len(self._inbox) and self._is_too_late(arrival):
                    # Overload: inspecting this one would only make the next ones late as well.
                    self._not_inspected(
                        arrival.trigger, arrival, Reason.DEADLINE, "the worker does not keep up"
                    )
                else:
                    self._send(arrival, self._link)
            else:
                return

    def _is_too_late(self, frame: Frame) -> bool:
        """Whether a part could not be judged within its deadline behind those in the worker."""
        expected_ns = (len(self._sent) + 1) * self._service_ns
        return time.perf_counter_ns() + expected_ns > self._deadline_ns(frame.trigger)

    def _send(self, frame: Frame, link: WorkerLink) -> None:
        slot = next(slot for slot in range(SLOTS) if slot not in self._sent)
        height, width = frame.image_rgb.shape[:2]
        try:
            self._slab.image(slot, height, width)[:] = frame.image_rgb
        except ValueError as error:
            self._not_inspected(frame.trigger, frame, Reason.WRONG_SIZE, str(error))
            return
        if not link.inspect(frame.trigger.part_seq, slot, height, width):
            self._not_inspected(frame.trigger, frame, Reason.WORKER_DOWN, "the worker takes no messages")
            return
        now_ns = time.perf_counter_ns()
        if not self._sent:
            self._last_progress_ns = now_ns
        self._sent[slot] = _Sent(frame, now_ns)

    def _expire(self) -> None:
        """Parts whose deadline has passed get their verdict now, wherever they are."""
        now_ns = time.perf_counter_ns()
        late = f"no verdict within {self._config.deadline_ms:g} ms"
        for sent in self._sent.values():
            if not sent.decided and self._deadline_ns(sent.frame.trigger) <= now_ns:
                sent.decided = True  # its slot stays taken until the worker lets go of it
                self._not_inspected(sent.frame.trigger, sent.frame, Reason.DEADLINE, late)
        while (
            (head := self._inbox.peek())
            and isinstance(head, Frame)
            and self._deadline_ns(head.trigger) <= now_ns
        ):
            self._inbox.pop()
            self._not_inspected(head.trigger, head, Reason.DEADLINE, late)

    def _result(self, sent: _Sent, result: AnomalyResult, model: Model) -> None:
        now_ns = time.perf_counter_ns()
        if sent.decided:
            return
        frame = sent.frame
        if self._deadline_ns(frame.trigger) <= now_ns:
            self._not_inspected(
                frame.trigger, frame, Reason.DEADLINE, f"no verdict within {self._config.deadline_ms:g} ms"
            )
            return
        verdict, reason = decide(result.score, model.limits)
        timings_ms = {
            "grab": (frame.captured_ns - frame.trigger.triggered_ns) / 1e6,
            "queue": (sent.sent_ns - frame.captured_ns) / 1e6,
            "detect": (now_ns - sent.sent_ns) / 1e6,
            **result.timings_ms,
        }
        self._emit(
            Inspection(
                trigger=frame.trigger,
                frame=frame,
                result=result,
                verdict=verdict,
                reason=reason,
                detail="",
                limits=model.limits,
                model_id=model.model_id,
                decided_ns=now_ns,
                timings_ms=timings_ms,
                regions=()
                if verdict is Verdict.PASS
                else find_regions(result.anomaly_map, model.limits.recheck),
            )
        )

    def _not_inspected(self, trigger: Trigger, frame: Frame | None, reason: Reason, detail: str) -> None:
        self._emit(
            Inspection(
                trigger=trigger,
                frame=frame,
                result=None,
                verdict=Verdict.NOT_INSPECTED,
                reason=reason,
                detail=detail,
                limits=self.model.limits if self.model else None,
                model_id=self.model.model_id if self.model else "",
                decided_ns=time.perf_counter_ns(),
            )
        )

    # --- the worker

    def _start_worker(self) -> None:
        self._on_worker("warn", "loading the model")
        try:
            self._link = WorkerLink(self._command, self._slab)
        except OSError as error:  # no memory for a process, say
            self._worker_lost(f"worker cannot be started: {error}")
        self._link_started_s = time.monotonic()

    def _read_worker(self) -> None:
        if self._link is None:
            return
        for message in self._link.receive():
            now_ns = time.perf_counter_ns()
            if isinstance(message, Result | Refused):
                taken_ns = now_ns - self._last_progress_ns  # since it was sent, or the one before it answered
                self._service_ns += 0.25 * (taken_ns - self._service_ns)
            self._last_progress_ns = now_ns
            wrong = ""
            match message:
                case Hangup():
                    wrong = message.exit_text
                case Ready():
                    self.model = Model(message.model_id, message.model_name, message.limits)
                    self._on_worker("ok", self.model.model_name)
                    self.settled.set()
                case Failed():
                    wrong = message.message or "the model cannot be used"
                case Result() | Refused():
                    wrong = self._answered(message)
            if wrong:
                self._worker_lost(wrong)
                return

    def _answered(self, message: Result | Refused) -> str:
        """Decide the part; or why the worker cannot be believed."""
        slot, model = message.slot, self.model
        sent = self._sent.get(slot)
        if sent is None or sent.frame.trigger.part_seq != message.part_seq or model is None:
            return f"the worker answered for part {message.part_seq}, which it was not given"
        if isinstance(message, Refused):
            del self._sent[slot]
            if not sent.decided:
                self._not_inspected(sent.frame.trigger, sent.frame, Reason.WORKER_ERROR, message.message)
            return ""
        try:
            anomaly_map = self._slab.anomaly_map(slot, message.map_height, message.map_width).copy()
        except ValueError as error:
            return f"the worker's map: {error}"
        del self._sent[slot]
        self._result(sent, AnomalyResult(message.score, anomaly_map, message.timings_ms), model)
        return ""

    def _watch_worker(self) -> None:
        """Kill a worker that hangs; start another when it is time."""
        now_s = time.monotonic()
        if self._link is None:
            if now_s >= self._start_again_s and not self._stopping.is_set():
                self._start_worker()
            return
        if self.model is None:
            if now_s - self._link_started_s > self._config.start_timeout_s:
                self._worker_lost(f"the model was not ready within {self._config.start_timeout_s:g} s")
        else:
            silent_ms = (time.perf_counter_ns() - self._last_progress_ns) / 1e6
            if self._sent and silent_ms > self._config.hang_ms:
                self._worker_lost(f"worker silent for {silent_ms:.0f} ms")
        if now_s - self._link_started_s > _STABLE_S:
            self._backoff_s = 0.0

    def _worker_lost(self, why: str) -> None:
        """Reject what was in the worker, kill it, and plan the next one."""
        first = not self.settled.is_set()
        log.log(logging.INFO if first else logging.ERROR, "worker lost: %s", why)
        link, self._link, self.model = self._link, None, None
        if link:
            link.kill()
        self._on_worker("fault", why)
        lost, self._sent = self._sent, {}
        for sent in lost.values():
            if not sent.decided:
                self._not_inspected(sent.frame.trigger, sent.frame, Reason.WORKER_DOWN, why)
        if first:  # the engine tells why, and does not start the line
            self.start_error = why
            self._start_again_s = math.inf
            self.settled.set()
            return
        now_s = time.monotonic()
        self._restarts_s.append(now_s)
        self.restarts += 1
        while self._restarts_s[0] < now_s - _HOUR_S:
            self._restarts_s.popleft()
        if len(self._restarts_s) > self._config.max_restarts_per_hour:
            raise WorkerFault(f"worker lost {len(self._restarts_s)} times within an hour; last: {why}")
        self._start_again_s = now_s + self._backoff_s
        self._backoff_s = min(max(0.25, 2 * self._backoff_s), _MAX_BACKOFF_S)

    def _close(self) -> None:
        """Whatever ended this stage: no part stays without a verdict, no worker stays alive."""
        for sent in self._sent.values():
            if not sent.decided:
                self._not_inspected(sent.frame.trigger, sent.frame, Reason.STOPPED, "the line stopped")
        self._sent.clear()
        self.drain()
        if self._link:
            link, self._link = self._link, None
            link.stop()
        self.model = None
        self.settled.set()

    def drain(self) -> None:
        """Decide everything still in the inbox as stopped. Only for this stage, or after its thread has
        ended."""
        while arrival := self._inbox.pop():
            frame = arrival if isinstance(arrival, Frame) else None
            self._not_inspected(arrival.trigger, frame, Reason.STOPPED, "the line stopped")
