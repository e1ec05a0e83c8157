"""The acquisition stage: sole caller of its camera. Each trigger becomes a part in the ledger, with or
without image.

Software triggers follow the station's clock; with `trigger.source: camera` every buffer that arrives is a
part.
"""

import logging
import threading
import time
from collections.abc import Callable

from drivers.camera import Camera
from drivers.errors import CameraError, CameraLost, DriverError
from drivers.types import CameraInfo, Frame, Grab, Trigger
from station.config import TriggerSection
from station.inspection import Arrival, Missed
from station.mailbox import Mailbox
from station.stage import Stage
from station.types import Reason

log = logging.getLogger(__name__)

_SLICE_S = 0.1
_FIRST_BACKOFF_S, _MAX_BACKOFF_S = 0.25, 5.0


class AcquisitionStage(Stage):
    """One camera's thread."""

    def __init__(
        self,
        *,
        camera: Camera,
        camera_id: str,
        config: TriggerSection,
        new_part: Callable[[str], Trigger | None],
        outbox: Mailbox[Arrival],
        on_camera: Callable[[str, str], None],
        on_failure: Callable[[Stage], None],
    ) -> None:
        """Set up; `start()` opens the camera, `run_line` lets parts through.

        Args:
            camera: only this thread touches it.
            camera_id: its name.
            config: where triggers come from.
            new_part: opens a part in the ledger now; None when no more parts are wanted.
            outbox: to the inspection stage; a full one makes the part NOT_INSPECTED, counted.
            on_camera: told the camera's state (ok, warn or fault) and a text when they change.
            on_failure: told when this stage dies.
        """
        super().__init__("acquisition", on_failure)
        self._camera = camera
        self._camera_id = camera_id
        self._config = config
        self._new_part = new_part
        self._outbox = outbox
        self._on_camera = on_camera
        self._info: CameraInfo | None = None
        self._last_frame_id: int | None = None
        self._wake = threading.Condition()
        self._running = False
        self._stopping = False
        self.opened = threading.Event()
        """Set once the camera is open, or cannot be opened."""
        self.open_error: DriverError | None = None
        self.finished = threading.Event()
        """Set when `new_part` wants no more."""
        self.counts = {"failed": 0, "lost": 0, "missing": 0, "missed": 0, "reconnects": 0, "stale": 0}
        """Buffers and triggers that went wrong, by kind."""

    @property
    def info(self) -> CameraInfo | None:
        """What the open camera says of itself."""
        return self._info

    def run_line(self, running: bool) -> None:
        """Let parts through, or hold the line."""
        with self._wake:
            self._running = running
            self._wake.notify()

    def stop(self) -> None:
        """No more triggers; end after the one in progress."""
        with self._wake:
            self._stopping = True
            self._wake.notify()

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
            self.opened.set()
        self._on_camera("ok", self._info.model)
        try:
            by_software = self._config.source == "software"
            next_s = time.monotonic()
            while self._wait_until(next_s if by_software else 0.0):
                try:
                    if by_software:
                        # A late start moves the clock: the station paces this line, it does not catch up in a
                        # burst.
                        next_s = max(next_s, time.monotonic() - _SLICE_S) + self._config.interval_ms / 1e3
                        self._one_by_software()
                    else:
                        self._one_by_camera()
                except CameraLost as error:
                    self._reconnect(error)
                    next_s = time.monotonic()
        finally:
            self._camera.close()

    def _wait_until(self, start_s: float) -> bool:
        """Sleep until the line runs and it is time; False when stopping or finished."""
        with self._wake:
            while not self._stopping and not self.finished.is_set():
                left_s = start_s - time.monotonic()
                if self._running and left_s <= 0:
                    return True
                self._wake.wait(left_s if self._running else None)
            return False

    # --- one part
    # -------------------------------------------------------------------------------------------------

    def _one_by_software(self) -> None:
        trigger = self._open_part()
        if trigger is None:
            return
        answered = False
        try:
            self._camera.trigger()
            grab = self._camera.retrieve(self._config.frame_timeout_ms / 1e3)
            if grab is None:
                self.counts["missing"] += 1
                self._miss(
                    trigger, Reason.FRAME_MISSING, f"no image within {self._config.frame_timeout_ms:g} ms"
                )
            else:
                self._deliver(trigger, grab)
            answered = True
        except CameraLost as error:
            self._miss(trigger, Reason.CAMERA_LOST, str(error))
            answered = True
            raise
        except CameraError as error:
            self.counts["missed"] += 1
            self._miss(trigger, Reason.TRIGGER_MISSED, str(error))
            answered = True
        finally:
            if not answered:  # a fault of this program, too, leaves no part without a verdict
                self._miss(trigger, Reason.FRAME_FAILED, "acquisition failed")

    def _one_by_camera(self) -> None:
        grab = self._camera.retrieve(_SLICE_S)
        if grab is None:
            return
        trigger = self._open_part()
        if trigger is not None:
            self._deliver(trigger, grab)

    def _open_part(self) -> Trigger | None:
        trigger = self._new_part(self._camera_id)
        if trigger is None:
            self.finished.set()
        return trigger

    def _deliver(self, trigger: Trigger, grab: Grab) -> None:
        self._count_lost(grab.frame_id)
        if grab.image_rgb is None:
            self.counts["failed"] += 1
            self._miss(trigger, Reason.FRAME_FAILED, grab.error)
            return
        assert self._info is not None
        height, width = grab.image_rgb.shape[:2]
        if self._info.fixed_size and (width, height) != (self._info.width_px, self._info.height_px):
            expected = f"{self._info.width_px} x {self._info.height_px}"
            self._miss(trigger, Reason.WRONG_SIZE, f"image of {width} x {height} px, {expected} expected")
            return
        frame = Frame(trigger, grab.frame_id, grab.image_rgb, grab.captured_ns, grab.device)
        if not self._outbox.put(frame):
            self._miss(trigger, Reason.QUEUE_FULL, "the worker does not keep up")

    def _count_lost(self, frame_id: int) -> None:
        if self._last_frame_id is not None and frame_id > self._last_frame_id + 1:
            lost = frame_id - self._last_frame_id - 1
            self.counts["lost"] += lost
            log.warning("%s lost %d frames before frame %d", self._camera_id, lost, frame_id)
        self._last_frame_id = frame_id

    def _miss(self, trigger: Trigger, reason: Reason, detail: str) -> None:
        self._outbox.put(Missed(trigger, reason, detail))

    # --- reconnect
    # ------------------------------------------------------------------------------------------------

    def _reconnect(self, error: CameraLost) -> None:
        """Close, back off, open again, until the camera is back or the line stops."""
        backoff_s = _FIRST_BACKOFF_S
        log.error("%s lost: %s", self._camera_id, error)
        self._on_camera("fault", f"lost, reconnecting ({error})")
        while True:
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
            self.counts["reconnects"] += 1
            self._last_frame_id = None
            self._on_camera("ok", self._info.model)
            return
