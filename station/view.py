"""One camera's view of the part: acquisition, the queue behind it, inspection with a worker of its own.

A part has one view for each camera of the line, and one verdict, the worst of them. The first camera leads:
its trigger opens the part (one of its own, where it has an input line: when its picture arrives); the others
are asked for theirs at once.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from drivers.camera import Camera
from drivers.types import Trigger
from station.acquisition import AcquisitionStage
from station.config import StationConfig
from station.inspection import Arrival, InspectionStage, Missed, is_missed
from station.mailbox import Mailbox
from station.slab import Slab
from station.stage import Stage
from station.types import Inspection, Reason, Verdict
from station.worker_wire import Model

_DEVICE_STATES = ("off", "ok", "warn", "fault")
_VERDICTS = (Verdict.PASS, Verdict.RECHECK, Verdict.NOT_INSPECTED, Verdict.REJECT)


class View:
    """Owns one camera's stages; the engine starts and stops them."""

    def __init__(
        self,
        *,
        index: int,
        config: StationConfig,
        camera: Camera,
        slab: Slab,
        command: Sequence[str],
        new_part: Callable[[str, int], Trigger | None],
        on_camera: Callable[[str, str], None],
        on_failure: Callable[[Stage], None],
    ) -> None:
        """Compose; nothing is opened yet.

        Args:
            index: of the camera in the configuration; 0 leads.
            config: the whole configuration.
            camera: only this view's acquisition touches it.
            slab: shared with the worker; closed with the view.
            command: starts a worker with this view's model.
            new_part: see `AcquisitionStage`; only the leading camera calls it.
            on_camera: told the camera's state (ok, warn or fault) and a text.
            on_failure: told when a stage dies.
        """
        self.camera_id = config.cameras[index].camera_id
        self._config = config.inspection
        self._command = command
        self._suffix = f"-{index + 1}" if index else ""
        self._on_failure = on_failure
        self._slab = slab
        self.inbox: Mailbox[Arrival] = Mailbox(self._config.queue_length, exempt=is_missed)
        self.acquisition = AcquisitionStage(
            camera=camera,
            camera_id=self.camera_id,
            config=config.trigger,
            takes_triggers=index > 0 or config.trigger.source == "plc",
            new_part=new_part,
            outbox=self.inbox,
            on_camera=on_camera,
            on_failure=on_failure,
        )
        self.acquisition.name += self._suffix
        self.inspection: InspectionStage | None = None

    def open_inspection(
        self, emit: Callable[[Inspection], None], on_worker: Callable[[str, str], None]
    ) -> InspectionStage:
        """The stage that starts the worker.

        Args:
            emit: takes the verdict of each part in this view.
            on_worker: told the worker's state (ok, warn or fault) and a text.
        """
        self.inspection = InspectionStage(
            inbox=self.inbox,
            slab=self._slab,
            command=self._command,
            config=self._config,
            emit=emit,
            on_worker=on_worker,
            on_failure=self._on_failure,
        )
        self.inspection.name += self._suffix
        return self.inspection

    @property
    def model(self) -> Model | None:
        """The model that is ready; None while there is none."""
        return self.inspection.workers.model if self.inspection else None

    def take(self, trigger: Trigger) -> None:
        """Expose a part that somebody else has triggered. Never blocks."""
        self.acquisition.take(replace(trigger, camera_id=self.camera_id))

    def miss(self, trigger: Trigger, reason: Reason, detail: str) -> None:
        """A part of which this camera takes no picture. Never blocks."""
        self.inbox.put(Missed(replace(trigger, camera_id=self.camera_id), reason, detail))

    def close(self) -> None:
        """Let go of the memory, once the stages have ended or if they were never started."""
        self._slab.close()
        self.inbox.close()


class PartJoin:
    """Brings the views of each part together. Any thread may call it; verdicts leave one at a time."""

    def __init__(self, camera_ids: Sequence[str], emit: Callable[[Inspection], None]) -> None:
        """Nothing waits yet.

        Args:
            camera_ids: in the order of the configuration.
            emit: takes each part's verdict, once; must not block.
        """
        self._camera_ids = tuple(camera_ids)
        self._emit = emit
        self._lock = threading.Lock()
        self._waiting: dict[int, dict[str, Inspection]] = {}

    def judged(self, inspection: Inspection) -> None:
        """A part was judged in one view. Each view judges every part within its deadline, so none waits
        longer."""
        trigger = inspection.trigger
        with self._lock:
            views = self._waiting.setdefault(trigger.part_seq, {})
            views[trigger.camera_id] = inspection
            if len(views) == len(self._camera_ids):
                del self._waiting[trigger.part_seq]
                self._emit(worst_of([views[camera_id] for camera_id in self._camera_ids]))


def worst_of(views: Sequence[Inspection]) -> Inspection:
    """The part's verdict: that of its worst view, decided when the last one was.

    PASS < RECHECK < NOT INSPECTED < REJECT: a defect that one camera has seen is no less certain because
    another was blind. Among equals the highest score in units of its limit counts.
    """
    if len(views) == 1:
        return views[0]
    worst = max(views, key=_badness)
    return replace(worst, decided_ns=max(view.decided_ns for view in views), views=tuple(views))


def _badness(view: Inspection) -> tuple[int, float]:
    level = 0.0
    if view.result is not None and view.limits is not None and view.limits.reject > 0:
        level = view.result.score / view.limits.reject
    return _VERDICTS.index(view.verdict), math.inf if math.isnan(level) else level


class DeviceOfViews:
    """Several devices of one kind told as one: the worst state, and which of them is in it."""

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        """Nothing is known yet; `tell` takes the state (ok, warn or fault) and a text when they change."""
        self._tell = tell
        self._lock = threading.Lock()
        self._states: dict[str, tuple[str, str]] = {}

    def of(self, camera_ids: Sequence[str]) -> Mapping[str, Callable[[str, str], None]]:
        """camera id -> where its device's state and text are told."""
        if len(camera_ids) == 1:
            return {camera_ids[0]: self._tell}
        self._states = dict.fromkeys(camera_ids, ("off", "not heard yet"))
        return {camera_id: self._changer(camera_id) for camera_id in camera_ids}

    def _changer(self, camera_id: str) -> Callable[[str, str], None]:
        def changed(state: str, text: str) -> None:
            with self._lock:
                self._states[camera_id] = (state, text)
                worst_id = max(self._states, key=lambda one: _DEVICE_STATES.index(self._states[one][0]))
                state, text = self._states[worst_id]
                waited_for = [one for one, (known, _) in self._states.items() if known == "off"]
                if state == "ok" and waited_for:
                    self._tell("warn", f"{waited_for[0]}: starting")
                elif state == "ok":
                    self._tell("ok", "; ".join(text for _, text in self._states.values()))
                else:
                    self._tell(state, f"{worst_id}: {text}")

        return changed
