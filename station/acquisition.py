"""The acquisition stage: sole caller of its camera. Each trigger becomes a part in the ledger, with or
without image.

Software triggers follow the station's clock, or are taken: the PLC's (`trigger.source: plc`), or those of the
camera that leads where there are several; with `trigger.source: camera` every buffer that arrives is a part.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from drivers.camera import Camera
from drivers.errors import CameraError, CameraLost, DriverError
from drivers.types import CameraInfo, Frame, Grab, ImageRgb, Trigger
from station.inspection import Arrival, Missed
from station.mailbox import Mailbox
from station.sections import TriggerSection
from station.stage import LONGEST_WAIT_S, Stage
from station.types import Reason

log = logging.getLogger(__name__)

_SLICE_S = 0.1
_FIRST_BACKOFF_S, _MAX_BACKOFF_S = 0.25, 1.0


class AcquisitionStage(Stage):
    """One camera's thread."""

    def __init__(
        self,
        *,
        camera: Camera,
        camera_id: str,
        config: TriggerSection,
        takes_triggers: bool,
        new_part: Callable[[str, int], Trigger | None],
        outbox: Mailbox[Arrival],
        on_camera: Callable[[str, str], None],
        on_failure: Callable[[Stage], None],
    ) -> None:
        """Set up; `start()` opens the camera, `run_line` lets parts through.

        Args:
            camera: only this thread touches it.
            camera_id: its name.
            config: where triggers come from.
            takes_triggers: they are taken (`take`), whatever the configuration's source.
            new_part: opens a part triggered at a perf_counter_ns in the ledger; None when no more are wanted.
            outbox: to the inspection stage; a full one makes the part NOT_INSPECTED, counted.
            on_camera: told the camera's state (ok, warn or fault) and a text when they change.
            on_failure: told when this stage dies.
        """
        super().__init__("acquisition", on_failure)
        self.patience_s += config.frame_timeout_ms / 1e3
        self._camera = camera
        self._camera_id = camera_id
        self._config = config
        self._takes_triggers = takes_triggers
        self._new_part = new_part
        self._outbox = outbox
        self._on_camera = on_camera
        self._info: CameraInfo | None = None
        self._last_frame_id: int | None = None
        self._last_image: ImageRgb | None = None
        self._missing_in_a_row = 0
        self._failed_in_a_row = 0
        self._failure = ""
        self._wake = threading.Condition()
        self._running = False
        self._has_run = False
        self._stopping = False
        self._taken: deque[Trigger] = deque()  # parts that somebody else has triggered
        self._takes = True
        self._released = threading.Event()
        self.drained = threading.Event()
        """Set when no more parts come from here."""
        self.opened = threading.Event()
        """Set once the camera is open, or cannot be opened."""
        self.open_error: DriverError | None = None
        self.finished = threading.Event()
        """Set when `new_part` wants no more."""
        self.counts = {"failed": 0, "lost": 0, "missing": 0, "repeated": 0, "refused": 0, "reconnects": 0}
        """Buffers failed or lost, images missing or repeated, triggers refused, reconnects."""

    @property
    def info(self) -> CameraInfo | None:
        """What the open camera says of itself."""
        return self._info

    def run_line(self, running: bool) -> None:
        """Let parts through, or hold the line."""
        with self._wake:
            self._running = running
            self._has_run |= running
            self._wake.notify()

    def take(self, trigger: Trigger) -> None:
        """Expose a part that somebody else has triggered. Never blocks."""
        with self._wake:
            if self._takes:
                self._taken.append(trigger)
                self._wake.notify()
                return
        reason = Reason.STOPPED if self._stopping else Reason.CAMERA_LOST
        self._deliver(Missed(trigger, reason, "the camera takes no trigger now"))

    def stop(self) -> None:
        """No more triggers; `drained` after those there are. The camera stays open until `release`."""
        with self._wake:
            self._stopping, self._takes = True, False
            self._wake.notify()

    def release(self) -> None:
        """Nobody needs the camera's outputs any more: close it, and end."""
        self._released.set()

    def work(self) -> None:
        """Open, then one part after another until stopped."""
        try:
            self._info = self._camera.open()
        except DriverError as error:
            self.open_error = error
            return
        finally:
            if self._info is None:
                self._camera.close()
                self.drained.set()
            self.opened.set()
        self._on_camera("ok", self._info.model)
        try:
            if self._takes_triggers:
                self._follow_others()
            elif self._config.source == "camera":
                self._follow_camera()
            else:
                self._follow_clock()
            self.drained.set()
            while not self._released.wait(LONGEST_WAIT_S):
                self.beat()
        finally:
            self.drained.set()
            self._camera.close()

    # --- software triggers

    def _follow_clock(self) -> None:
        interval_s = self._config.interval_ms / 1e3
        next_s = time.monotonic()
        while self._wait_until(next_s):
            # A late start moves the clock: the station paces this line, it catches up with one part at most.
            next_s = max(next_s, time.monotonic() - interval_s) + interval_s
            try:
                if trigger := self._open_part(time.perf_counter_ns()):
                    self._expose(trigger)
            except CameraLost as error:
                self._reconnect(error)
                next_s = time.monotonic()

    def _wait_until(self, start_s: float) -> bool:
        """Sleep until the line runs and it is time; False when stopping or finished."""
        with self._wake:
            while not self._stopping and not self.finished.is_set():
                self.beat()
                left_s = start_s - time.monotonic()
                if self._running and left_s <= 0:
                    return True
                self._wake.wait(min(left_s, LONGEST_WAIT_S) if self._running else LONGEST_WAIT_S)
            return False

    def _follow_others(self) -> None:
        """Each part that was taken is exposed at once, or missed: a late picture would show another place."""
        try:
            while (trigger := self._next_taken()) is not None:
                late_ms = (time.perf_counter_ns() - trigger.triggered_ns) / 1e6
                if late_ms > self._config.late_ms:
                    late = f"{late_ms:.0f} ms after its trigger"
                    self._deliver(self._missed("refused", trigger, Reason.TRIGGER_MISSED, late))
                    continue
                try:
                    self._expose(trigger)
                except CameraLost as error:
                    self._let_go(Reason.CAMERA_LOST, str(error))
                    self._reconnect(error)
                    with self._wake:
                        self._takes = not self._stopping
        finally:
            self._let_go(Reason.STOPPED, "the line stopped")

    def _next_taken(self) -> Trigger | None:
        with self._wake:
            while not self._wake.wait_for(lambda: self._taken or self._stopping, LONGEST_WAIT_S):
                self.beat()
            self.beat()
            return self._taken.popleft() if self._taken else None

    def _let_go(self, reason: Reason, detail: str) -> None:
        """Take no more parts; those that were taken will not be exposed."""
        with self._wake:
            self._takes = False
        while self._taken:
            self._deliver(Missed(self._taken.popleft(), reason, detail))

    def _expose(self, trigger: Trigger) -> None:
        # Stands when anything unforeseen happens below: no part stays without a verdict.
        outcome: Arrival = Missed(trigger, Reason.FRAME_FAILED, "acquisition failed")
        try:
            self._camera.trigger()
            grab = self._camera.retrieve(self._config.frame_timeout_ms / 1e3)
            if grab is not None:
                self._missing_in_a_row = 0
                self._lost_before(grab)
                outcome = self._arrival(trigger, grab)
            else:
                late = f"no image within {self._config.frame_timeout_ms:g} ms"
                outcome = self._missed("missing", trigger, Reason.FRAME_MISSING, late)
                self._missing_in_a_row += 1
        except CameraLost as error:
            outcome = Missed(trigger, Reason.CAMERA_LOST, str(error))
            raise
        except CameraError as error:
            outcome = self._missed("refused", trigger, Reason.TRIGGER_MISSED, str(error))
            self._missing_in_a_row += 1
        finally:
            self._deliver(outcome)
        if self._missing_in_a_row >= self._config.lost_after > 0:  # unplugged, and nobody says so
            raise CameraLost(f"no image for {self._missing_in_a_row} triggers in a row")

    # --- the camera's own triggers

    def _follow_camera(self) -> None:
        """Every buffer is a part; while the line is paused it is NOT INSPECTED, so that none goes stale.

        Before the line has run for the first time the station is not ready and buffers are let go.
        """
        last_ns = time.perf_counter_ns()
        while not self._stopping and not self.finished.is_set():
            self.beat()
            try:
                grab = self._camera.retrieve(_SLICE_S)
            except CameraError as error:
                self._reconnect(error)
                continue
            if grab is None:
                continue
            lost = self._lost_before(grab)
            if self._has_run:
                for number in range(1, lost + 1):  # parts that went by without a buffer, spread over the gap
                    self._part_without_buffer(last_ns + (grab.captured_ns - last_ns) * number // (lost + 1))
                self._part_with_buffer(grab)
            last_ns = grab.captured_ns

    def _part_without_buffer(self, triggered_ns: int) -> None:
        trigger = self._open_part(triggered_ns)
        if trigger is not None:
            self._deliver(Missed(trigger, Reason.FRAME_MISSING, "the camera lost its buffer"))

    def _part_with_buffer(self, grab: Grab) -> None:
        trigger = self._open_part(grab.captured_ns)
        if trigger is not None:
            paused = Missed(trigger, Reason.PAUSED, "the line is paused")
            self._deliver(self._arrival(trigger, grab) if self._running else paused)

    # --- one part

    def _open_part(self, triggered_ns: int) -> Trigger | None:
        trigger = self._new_part(self._camera_id, triggered_ns)
        if trigger is None:
            self.finished.set()
        return trigger

    def _arrival(self, trigger: Trigger, grab: Grab) -> Arrival:
        """The part's frame, or why its buffer cannot be used."""
        if grab.image_rgb is None:
            log.warning("%s: no picture of part %d: %s", self._camera_id, trigger.part_seq, grab.error)
            self._failed_in_a_row, self._failure = self._failed_in_a_row + 1, grab.error
            return self._missed("failed", trigger, Reason.FRAME_FAILED, grab.error)
        if self._failed_in_a_row:
            self._failed_in_a_row = 0
            self._tell()
        assert self._info is not None
        height, width = grab.image_rgb.shape[:2]
        if self._info.fixed_size and (width, height) != (self._info.width_px, self._info.height_px):
            expected = f"{self._info.width_px} x {self._info.height_px}"
            return Missed(trigger, Reason.WRONG_SIZE, f"image of {width} x {height} px, {expected} expected")
        repeats = self._config.reject_repeats and self._repeats_the_last(grab.image_rgb)
        self._last_image = grab.image_rgb
        if repeats:
            return self._missed("repeated", trigger, Reason.FRAME_REPEATED, "pixel by pixel the one before")
        return Frame(trigger, grab.frame_id, grab.image_rgb, grab.captured_ns, grab.device)

    def _repeats_the_last(self, image_rgb: ImageRgb) -> bool:
        """No sensor takes the same picture twice: it has noise. A camera that hangs sends it again."""
        last = self._last_image
        if last is None or last.shape != image_rgb.shape:
            return False
        return np.array_equal(last[::16], image_rgb[::16]) and np.array_equal(last, image_rgb)

    def _deliver(self, arrival: Arrival) -> None:
        if not self._outbox.put(arrival):
            self._outbox.put(Missed(arrival.trigger, Reason.QUEUE_FULL, "the worker does not keep up"))

    def _missed(self, kind: str, trigger: Trigger, reason: Reason, detail: str) -> Missed:
        self._count(kind, 1)
        return Missed(trigger, reason, detail)

    def _lost_before(self, grab: Grab) -> int:
        """How many buffers are missing between the last one and this."""
        last, self._last_frame_id = self._last_frame_id, grab.frame_id
        lost = max(0, grab.frame_id - last - 1) if last is not None else 0
        if lost:
            log.warning("%s lost %d frames before frame %d", self._camera_id, lost, grab.frame_id)
            self._count("lost", lost)
        return lost

    def _count(self, kind: str, number: int) -> None:
        """Count what went wrong."""
        self.counts[kind] += number
        self._tell()

    def _tell(self) -> None:
        """The camera's line on the screen; no fault while it fails: a PLC would trigger no more, for ever."""
        assert self._info is not None
        told = ", ".join(f"{count} {name}" for name, count in self.counts.items() if count)
        if self._failed_in_a_row >= self._config.lost_after > 0:
            self._on_camera("warn", f"{self._failed_in_a_row} pictures in a row failed: {self._failure}")
        else:
            self._on_camera("ok", f"{self._info.model}; {told}")

    # --- reconnect

    def _reconnect(self, error: CameraError) -> None:
        """Close, back off, open again, until the camera is back or the line stops."""
        backoff_s = _FIRST_BACKOFF_S
        log.error("%s lost: %s", self._camera_id, error)
        self._on_camera("fault", f"lost, reconnecting ({error})")
        while True:
            self.beat()
            self._camera.close()
            with self._wake:
                if self._wake.wait_for(lambda: self._stopping, backoff_s):
                    return
            try:
                self._info = self._camera.open()
            except DriverError as again:
                log.warning("%s: %s", self._camera_id, again)
                backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)
                continue
            self._last_frame_id, self._missing_in_a_row, self._failed_in_a_row = None, 0, 0
            self._count("reconnects", 1)
            return
