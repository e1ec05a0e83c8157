"""The engine: composes the stages into one line, starts and stops them in order, answers for its account.

camera -> acquisition -> [inbox] -> inspection <-> worker process      a view; one for each camera
                                        `-> part join
                                              |-> sorting: plc (handshake), actuation (gate), stack_light
                                              |-> recording (database, pictures)
                                              `-> publishing (screens)
"""

import itertools
import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from db.archive import Swept
from db.models import EventKind
from db.writer import EventRow, PartRow
from drivers.camera import Camera, create_camera
from drivers.errors import OutputError
from drivers.outputs import DigitalOutput
from drivers.types import Trigger
from station.acquisition import AcquisitionStage
from station.actuation import ActuationStage
from station.commands import Commands
from station.conditions import ConditionWatch
from station.config import StationConfig, config_sha256
from station.health import LineHealth
from station.ledger import Ledger
from station.messages import status_message, verdict_message
from station.plc import LineSignals
from station.publishing import PublishingStage
from station.recording import RecordingStage
from station.slab import PICTURE_BYTES, Slab
from station.sorting import Sorting
from station.stack_light import lamps_lit
from station.stage import Stage
from station.types import Alarm, EngineState, Inspection, LedgerSnapshot, Reason, StatusMessage
from station.upkeep import Upkeep
from station.view import DeviceOfViews, PartJoin, View
from station.worker_link import worker_command
from station.worker_wire import Model

log = logging.getLogger(__name__)

_OPEN_TIMEOUT_S = 30.0
_RECORD_STOP_S = 10.0


class StartError(Exception):
    """The line cannot start; the message is one line and says what to do."""


class Engine:
    """One line, from `start` to `stop`. Not reusable."""

    def __init__(
        self,
        config: StationConfig,
        *,
        parts: int | None = None,
        cameras: Sequence[Camera] | None = None,
        gate: DigitalOutput | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        """Compose the stages; nothing is opened yet.

        Args:
            config: the whole configuration.
            parts: stop triggering after so many; None = never.
            cameras: instead of the configured ones, as many.
            gate: instead of the configured one.
            command: starts each worker, instead of the configured model's.
        """
        self.config = config
        self.run_id = uuid.uuid4().hex
        self.ledger = Ledger()
        self.done = threading.Event()
        """Set when the line wants to be stopped: parts finished, shutdown asked for, or a fault."""
        self.stop_reason = ""
        self.signal_received = 0
        """Set by a signal handler, which must not touch a lock the interrupted thread may hold."""
        self._parts_left = parts
        self._lifecycle = EngineState.STARTING
        self._pause_reason = ""
        self._fault = ""
        self._state_lock = threading.Lock()
        self._trigger_lock = threading.Lock()  # no PLC trigger slips behind the end of its parts
        self._takes_triggers = False
        self._told_state: tuple[EngineState, str] = (EngineState.STARTING, "")
        self._part_seqs = itertools.count(1)
        self._started: list[Stage] = []
        self.health = LineHealth(
            config.shifts, config.inspection.max_consecutive_rejects, on_alarm=self._alarm_came
        )
        self._conditions = ConditionWatch(self.health.alarm, self.health.clear)
        self._commands = Commands(self)
        self.recording = RecordingStage(
            database_path=config.database_path,
            images_dir=config.images_dir,
            backup_folder=config.backup_folder,
            run_id=self.run_id,
            line=config.line,
            shifts=config.shifts,
            config=config.record,
            on_recorded=self._recorded,
            on_record=self.device("record", "free disk space or repair the disk; parts are still judged"),
            on_loss=self._record_lost,
            on_recovered=self._record_recovered,
            on_failure=self.stage_failed,
        )
        self.publishing = PublishingStage(
            config=config.publishing,
            verdict_message=lambda inspection: verdict_message(inspection, self.run_id),
            status_message=self.status,
            on_command=self.command,
            on_failure=self.stage_failed,
        )
        slabs = [Slab.create() for _ in config.cameras]
        memories = [slab.lend for slab in slabs]
        cameras = list(cameras or map(create_camera, config.cameras, memories))
        self.camera_ids = [camera.camera_id for camera in config.cameras]
        camera_told = self.device("camera", "check the camera's cable and power")
        on_camera = DeviceOfViews(camera_told).of(self.camera_ids)
        self.views = tuple(
            View(
                index=index,
                config=config,
                camera=camera,
                slab=slab,
                command=self._worker_command(index, command),
                new_part=self._lead_part,
                on_camera=on_camera[camera_id],
                on_failure=self.stage_failed,
            )
            for index, (camera_id, camera, slab) in enumerate(
                zip(self.camera_ids, cameras, slabs, strict=True)
            )
        )
        try:
            self.sorting = Sorting(config, self, cameras[0], gate)
        except OutputError as error:
            for view in self.views:
                view.close()
            raise StartError(str(error)) from error
        self._join = PartJoin(self.camera_ids, self.sorting.judged)
        self.upkeep = Upkeep(self, on_fatal=self.stage_failed)

    def _worker_command(self, index: int, command: Sequence[str] | None) -> list[str]:
        log_file = self.config.log_file(f"worker-{index + 1}" if index else "worker")
        return [*(command or worker_command(self.config, self.camera_ids[index])), *log_file.arguments()]

    # --- start and stop

    def start(self, run: bool = True) -> None:
        """Open, verify, warm; then READY, and RUNNING when `run`. Undoes itself when it fails.

        Raises:
            StartError: with what is wrong and what to do.
        """
        try:
            self._start_stage(self.upkeep.supervision)
            self._start_stage(self.recording)
            self._wait_record_opened()
            self._part_seqs = itertools.count(self.recording.last_part_seq + 1)
            self._pictures_swept(self.recording.swept)
            self.health.resume(self.recording.shift_counts, self.recording.trend)
            self._start_stage(self.publishing)
            self._wait_opened(self.publishing)
            for view in self.views:
                self._start_stage(view.acquisition)
            for view in self.views:
                self._wait_opened(view.acquisition)
            self.sorting.start(self._start_stage)
            self._wait_opened(self.sorting.actuation)
            if self.config.metrics.port:
                self._start_stage(self.upkeep.metrics)
            self._start_stage(self.upkeep.housekeeping)
            self._start_inspection()
        except BaseException as error:
            self.stop(f"could not start: {error}")
            raise
        self._lifecycle = EngineState.READY
        self._state_changed()
        if run:
            self.run_line()
        self.upkeep.supervision.ready()

    def _model_id(self) -> str:
        return "+".join(model.model_id for model in self.models)

    def _start_stage(self, stage: Stage) -> None:
        stage.start()
        self._started.append(stage)

    def _wait_record_opened(self) -> None:
        """As long as it takes: one that is damaged is brought back first, row by row."""
        while not self.recording.opened.wait(1.0):
            if self.wants_stop():
                raise StartError(self.stop_reason or "stopped while the record was opened")
            if self.recording.hangs:
                raise StartError("the record cannot be opened: its disk does not answer; see the log")
        self._wait_opened(self.recording)

    @staticmethod
    def _wait_opened(stage: RecordingStage | PublishingStage | AcquisitionStage | ActuationStage) -> None:
        if not stage.opened.wait(_OPEN_TIMEOUT_S):
            raise StartError(f"{stage.name} did not open within {_OPEN_TIMEOUT_S:g} s; see the log")
        error = stage.open_error or stage.error
        if error is not None:
            raise StartError(str(error)) from error

    def _start_inspection(self) -> None:
        worker_told = self.device("worker", "parts are rejected until it is back; see the log")
        on_worker = DeviceOfViews(worker_told).of(self.camera_ids)
        inspections = []
        for view in self.views:
            info = view.acquisition.info
            if info is None:
                raise StartError("the camera closed again while the line was starting; see the log")
            if info.fixed_size and 3 * info.width_px * info.height_px > PICTURE_BYTES:
                raise StartError(
                    f"{view.camera_id}: {info.width_px} x {info.height_px} px are more than the "
                    f"{PICTURE_BYTES // 3_000_000} megapixels that a picture can have; set a smaller region"
                )
            inspections.append(view.open_inspection(self._join.judged, on_worker[view.camera_id]))
            self._start_stage(inspections[-1])
        for inspection in inspections:
            while not inspection.workers.settled.wait(0.1):
                if self.wants_stop():
                    raise StartError(self.stop_reason or "stopped while the model was loading")
            if inspection.workers.model is None:
                raise StartError(
                    inspection.workers.start_error or f"the inspection stage failed: {inspection.error}"
                )
        self.recording.run_started(
            self.config.station.name, version("varad-station"), config_sha256(self.config), self._model_id()
        )

    def stop(self, reason: str) -> LedgerSnapshot:
        """Stop triggers, drain each stage in order, safe outputs, close. Returns the final account."""
        with self._state_lock:
            self._lifecycle = EngineState.STOPPING
        self.request_stop(reason)
        self._state_changed()
        limits = self.config.inspection
        with self._trigger_lock:
            self._takes_triggers = False
        for view in self.views:  # the leading camera first: behind it no part begins
            view.acquisition.stop()
            if view.acquisition in self._started:
                view.acquisition.drained.wait(_OPEN_TIMEOUT_S)
        patience_s = (limits.deadline_ms + limits.hang_ms) / 1e3 + 10
        inspections = [view.inspection for view in self.views if view.inspection is not None]
        for inspection in inspections:
            self._end(inspection, inspection.stop, patience_s)
            if not inspection.is_alive():
                inspection.drain()
        self.sorting.stop(self._end)
        self._end(self.upkeep.housekeeping, self.upkeep.housekeeping.stop, 15)
        self._lifecycle = EngineState.STOPPED
        self._state_changed()
        for view in self.views:
            self._end(view.acquisition, view.acquisition.release, 2 * _OPEN_TIMEOUT_S)
        if inspections:
            self.recording.run_stopped(self.stop_reason)
        self._end(self.recording, lambda: self.recording.stop(_RECORD_STOP_S), _RECORD_STOP_S + 15)
        self._end(self.publishing, self.publishing.stop, 5)
        self.publishing.close()
        self._end(self.upkeep.metrics, self.upkeep.metrics.stop, 5)
        self._end(self.upkeep.supervision, self.upkeep.supervision.stop, 5)
        for view in self.views:
            view.close()
        account = self.ledger.snapshot()
        if not account.balanced() or account.rows != account.triggered:
            log.error("the account does not balance at stop: %s", account)
        return account

    def _end(self, stage: Stage, stop: Callable[[], None], patience_s: float) -> None:
        if stage not in self._started:
            return
        stop()
        stage.join(patience_s)
        if stage.is_alive():
            log.error("stage %s did not end within %.0f s", stage.name, patience_s)

    def request_stop(self, reason: str) -> None:
        """Ask whoever runs the engine to stop it; the first reason stands."""
        with self._state_lock:
            self.stop_reason = self.stop_reason or reason
        self.done.set()

    def wants_stop(self) -> bool:
        """Whether the line wants to be stopped."""
        return self.done.is_set() or self.signal_received != 0

    def wait(self, timeout_s: float) -> bool:
        """Wait until the line wants to be stopped, at most so long; whether it does."""
        return self.done.wait(timeout_s) or self.wants_stop()

    @property
    def fault(self) -> str:
        """Why a stage failed; empty when none has."""
        return self._fault

    @property
    def lifecycle(self) -> EngineState:
        """Where the line was told to be, whatever its devices do."""
        return self._lifecycle

    @property
    def worker_pid(self) -> int | None:
        """Process id of the leading camera's worker."""
        inspection = self.views[0].inspection
        return inspection.workers.pid if inspection else None

    @property
    def worker_restarts(self) -> int:
        """How many workers were lost in this run."""
        return sum(view.inspection.workers.restarts for view in self.views if view.inspection)

    @property
    def acquisition(self) -> AcquisitionStage:
        """The leading camera's."""
        return self.views[0].acquisition

    @property
    def models(self) -> tuple[Model, ...]:
        """The models that are ready, each once, in the order of the cameras."""
        models = [view.model for view in self.views]
        return tuple({model.model_id: model for model in models if model is not None}.values())

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All that have been started, in order."""
        return tuple(self._started)

    def queue_lengths(self) -> Mapping[str, int]:
        """What waits before each stage: parts, but pictures where it says so."""
        return {
            "inspection": sum(len(view.inbox) for view in self.views),
            "recording": self.recording.waiting,
            "recording_images": self.recording.waiting_images,
            "publishing": self.publishing.waiting,
        }

    # --- called by the stages

    def _lead_part(self, camera_id: str, triggered_ns: int) -> Trigger | None:
        """The leading camera sees a part; the others are asked for their picture of it."""
        trigger = self._new_part(camera_id, triggered_ns)
        if trigger is not None:
            for view in self.views[1:]:
                view.take(trigger)
        return trigger

    def _new_part(self, camera_id: str, triggered_ns: int, plc_part_id: int | None = None) -> Trigger | None:
        """A part stands in front of the camera: it exists from here on, in the ledger and at the gate."""
        if self._parts_left is not None:
            if self._parts_left == 0:
                return None
            self._parts_left -= 1
        triggered_unix_ns = time.time_ns() - (time.perf_counter_ns() - triggered_ns)
        part_seq = next(self._part_seqs)
        trigger = Trigger(part_seq, camera_id, triggered_ns, triggered_unix_ns, plc_part_id)
        self.ledger.open(trigger.part_seq)
        self.sorting.actuation.expect(trigger)
        if self._parts_left == 0:
            self.request_stop("the parts asked for are done")
        return trigger

    def plc_triggered(self, missed: bool, part_id: int | None) -> Trigger | None:
        """The PLC says that a part stands before the camera, or went by unseen."""
        with self._trigger_lock:
            if not self._takes_triggers:  # the line has never run, or is stopping: not READY
                return None
            trigger = self._new_part(self.camera_ids[0], time.perf_counter_ns(), part_id)
            if trigger is None:
                return None
            for view in self.views:
                if missed:
                    view.miss(trigger, Reason.TRIGGER_MISSED, "triggered by the PLC while it was not heard")
                elif self._lifecycle is not EngineState.RUNNING:
                    view.miss(trigger, Reason.PAUSED, "the line is paused")
                else:
                    view.take(trigger)
            return trigger

    def signals(self) -> LineSignals:
        """What the PLC is told of the line."""
        state = self.state()[0]
        return LineSignals(
            ready=state is EngineState.RUNNING,
            busy=self.ledger.snapshot().in_flight > 0,
            fault=state is EngineState.FAULT,
        )

    def lamps_lit(self) -> frozenset[str]:
        """What the stack light shows."""
        return lamps_lit(self.state()[0], self.health.snapshot().alarms)

    def settled(self, inspection: Inspection) -> None:
        """A part has its final verdict."""
        self.ledger.decide(inspection.trigger.part_seq, inspection.verdict, inspection.reason)
        self.health.decided(inspection)
        self._conditions.decided(inspection)
        self.recording.put(inspection)
        self.publishing.put(inspection)

    def _recorded(self, row: PartRow) -> None:
        self.ledger.record(row.part_seq)

    def _record_lost(self, loss: str) -> None:
        self.health.alarm(
            "record-loss", "high", f"THE RECORD HAS LOST ROWS: {loss}", "keep the disk; see the log"
        )

    def _record_recovered(self, what: str) -> None:
        action = "the line runs; look after the disk, and keep the folder with the damaged file"
        self.health.alarm("record-damaged", "high", f"THE RECORD WAS DAMAGED: {what}", action)

    def _pictures_swept(self, swept: Swept) -> None:
        if str(swept):
            priority = "medium" if swept.missing else "low"
            self.health.alarm(
                "pictures", priority, f"PICTURES: {swept}", "ask who has access to the folder of images"
            )

    def device(self, name: str, action: str) -> Callable[[str, str], None]:
        """Where a device's state (ok, warn or fault) and a text are told; a fault's alarm says what to do."""

        def changed(state: str, text: str) -> None:
            self.health.device(name, state, text, action)
            self._state_changed()

        return changed

    def gate_changed(self, state: str, text: str) -> None:
        """A gate that does not move lets bad parts pass: the line is held until somebody starts it again."""
        self.device("gate", "check the reject gate, then start the line again")(state, text)
        if state == "fault" and self._lifecycle is EngineState.RUNNING:
            self.pause(f"reject gate: {text}", "")

    def hold(self, key: str, title: str, action: str, reason: str) -> None:
        """Alarm, and hold the line until somebody starts it again."""
        self.health.alarm(key, "high", title, action)
        if self._lifecycle is EngineState.RUNNING:
            self.pause(reason, "")

    def stage_failed(self, stage: Stage) -> None:
        """A stage has died: the line is stopped."""
        error = stage.error
        self._fault = self._fault or f"{stage.name}: {error or type(error).__name__}"
        self.health.alarm(
            "stage", "high", f"STATION FAULT: {self._fault}", "restart the station; send the log"
        )
        self._state_changed()
        self.request_stop(f"fault: {self._fault}")

    def _alarm_came(self, alarm: Alarm) -> None:
        if alarm.key == "record-loss":
            return  # the record has told itself
        self.record_event(
            EventKind.ALARM, alarm.priority, alarm.title, {"key": alarm.key, "action": alarm.action}
        )

    def record_event(
        self, kind: EventKind, severity: str, title: str, detail: dict[str, Any], user: str = ""
    ) -> None:
        """Something that is not a part has happened: into the log and the record."""
        log.info("%s: %s", kind, title)
        self.recording.event(
            EventRow(
                unix_ns=time.time_ns(),
                kind=kind,
                severity=severity,
                title=title,
                detail=detail,
                user=user or self.config.line.user,
            )
        )

    # --- state

    def state(self) -> tuple[EngineState, str]:
        """The engine's state and, where it is not plain, why."""
        if self._fault:
            return EngineState.FAULT, self._fault
        if self._lifecycle not in (EngineState.READY, EngineState.RUNNING):
            return self._lifecycle, self._pause_reason
        for device in ("camera", "worker", *self.sorting.devices):
            if self.health.device_state(device) != "ok":
                return EngineState.FAULT, f"{device} not ready; parts are rejected"
        return self._lifecycle, ""

    def _state_changed(self) -> None:
        """Record a change of state, once."""
        with self._state_lock:
            told = self.state()
            if told == self._told_state:
                return
            self._told_state = told
        state, reason = told
        severity = "high" if state is EngineState.FAULT else "info"
        title = f"{state}: {reason}" if reason else str(state)
        self.record_event(EventKind.STATE, severity, title, {"state": str(state), "reason": reason})

    def _move_to(self, lifecycle: EngineState, pause_reason: str = "") -> bool:
        """False once the line stops: no screen and no rule brings it back."""
        with self._state_lock:
            if self._lifecycle in (EngineState.STOPPING, EngineState.STOPPED):
                return False
            self._lifecycle, self._pause_reason = lifecycle, pause_reason
            return True

    def run_line(self) -> None:
        """Let parts through from now on; not once the line stops."""
        if not self._move_to(EngineState.RUNNING):
            return
        for key in ("reject-stop", "reject-confirm"):  # whoever starts the line has looked
            self.health.clear(key)
        self.sorting.line_started()
        with self._trigger_lock:
            self._takes_triggers = self._lifecycle is EngineState.RUNNING
        self.acquisition.run_line(True)
        self._state_changed()

    def pause(self, reason: str, user: str) -> None:
        """Hold the line until somebody starts it again."""
        if not self._move_to(EngineState.PAUSED, reason):
            return
        self.acquisition.run_line(False)
        self.record_event(EventKind.STOP, "info", f"line paused: {reason}", {"reason": reason}, user)
        self._state_changed()

    # --- screens

    def command(self, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Carry out a screen's command; see `station.client.CommandClient`."""
        return self._commands.carry_out(name, arguments)

    def status(self) -> StatusMessage:
        """The whole line at this moment."""
        health = self.health.snapshot()
        return status_message(self.config, self.state(), self.models, self.ledger.snapshot(), health)
