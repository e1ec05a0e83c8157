"""A line whose worker, camera or gate fails."""

import os
import signal
from pathlib import Path

import pytest
from line_runs import PASS, REJECT, assert_whole, run_line, wait_until
from scripted_line import STAND_IN, ScriptedCamera, line_config
from standin import FAULTS

from drivers.errors import CameraLost, CameraNotFound, OutputError
from drivers.outputs import SimulatedOutput
from drivers.types import CameraInfo
from station.engine import Engine, StartError
from station.types import EngineState


def test_a_killed_worker_is_replaced_and_its_parts_rejected(tmp_path: Path, no_leaks: None) -> None:
    config = line_config(tmp_path, trigger={"interval_ms": 20.0})
    camera = ScriptedCamera([PASS] * 5 + [(50, 0, FAULTS["kill"])] + [PASS] * 200)
    engine = Engine(config, parts=150, cameras=[camera], command=STAND_IN)
    rows = assert_whole(run_line(engine), engine, 150)
    assert (rows[5]["verdict"], rows[5]["reason"]) == ("NOT_INSPECTED", "worker down")
    assert rows[-1]["verdict"] == "PASS", "the next worker inspects"


def test_a_broken_detector_is_replaced(tmp_path: Path) -> None:
    camera = ScriptedCamera([PASS, (50, 0, FAULTS["broken"])] + [PASS] * 200)
    engine = Engine(
        line_config(tmp_path, trigger={"interval_ms": 20.0}), parts=150, cameras=[camera], command=STAND_IN
    )
    rows = assert_whole(run_line(engine), engine, 150)
    assert (rows[1]["verdict"], rows[1]["reason"]) == ("NOT_INSPECTED", "worker error")
    assert rows[-1]["verdict"] == "PASS"


def test_a_stopped_worker_is_replaced(tmp_path: Path) -> None:
    config = line_config(
        tmp_path, trigger={"interval_ms": 20.0}, inspection={"hang_ms": 200.0, "deadline_ms": 100.0}
    )
    engine = Engine(config, parts=150, cameras=[ScriptedCamera([PASS])], command=STAND_IN)
    engine.start()
    first = engine.worker_pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)
    assert engine.done.wait(60)
    second = engine.worker_pid
    account = engine.stop("done")
    rows = assert_whole(account, engine, 150)
    assert second != first
    assert not Path(f"/proc/{first}").exists()
    assert rows[-1]["verdict"] == "PASS"
    assert account.not_inspected > 0


def test_a_worker_that_keeps_dying_is_a_fault(tmp_path: Path, no_leaks: None) -> None:
    config = line_config(tmp_path, trigger={"interval_ms": 10.0}, inspection={"max_restarts_per_hour": 2})
    engine = Engine(config, cameras=[ScriptedCamera([(50, 0, FAULTS["crash"])])], command=STAND_IN)
    account = run_line(engine)
    assert_whole(account, engine, account.triggered)
    assert account.passed == 0
    assert "worker lost 3 times within an hour; last: worker exited with status 3" in engine.fault
    assert engine.state()[0] is EngineState.FAULT


class Unplugged(ScriptedCamera):
    """Goes at its third part, and is back at the third attempt to open it."""

    opens = 0

    def open(self) -> CameraInfo:
        self.opens += 1
        if self.opens in (2, 3):
            raise CameraNotFound("CAM 1: not there")
        return super().open()

    def trigger(self) -> None:
        if self.index == 2 and self.opens == 1:
            self.index += 1
            raise CameraLost("CAM 1: unplugged")
        super().trigger()


def test_a_lost_camera_rejects_its_part_alarms_and_comes_back(tmp_path: Path, no_leaks: None) -> None:
    engine = Engine(line_config(tmp_path), parts=6, cameras=[Unplugged([PASS])], command=STAND_IN)
    rows = assert_whole(run_line(engine), engine, 6)
    assert [row["verdict"] for row in rows] == ["PASS", "PASS", "NOT_INSPECTED", "PASS", "PASS", "PASS"]
    assert rows[2]["reason"] == "camera lost"
    assert engine.acquisition.counts["reconnects"] == 1
    assert [alarm.key for alarm in engine.health.snapshot().alarms] == ["device-camera"]


def test_a_camera_that_is_unplugged_silently_is_taken_for_lost_and_comes_back(
    tmp_path: Path, no_leaks: None
) -> None:
    camera = ScriptedCamera([PASS])
    config = line_config(tmp_path, trigger={"frame_timeout_ms": 10.0, "lost_after": 3})
    engine = Engine(config, cameras=[camera], command=STAND_IN)
    engine.start()
    wait_until(lambda: engine.ledger.snapshot().passed >= 2)
    camera.is_dead = True
    wait_until(lambda: engine.health.device_state("camera") == "fault")
    (alarm,) = engine.health.snapshot().alarms
    assert "no image for 3 triggers in a row" in alarm.title
    passed = engine.ledger.snapshot().passed
    camera.is_dead = False
    wait_until(lambda: engine.ledger.snapshot().passed >= passed + 2)
    assert engine.state()[0] is EngineState.RUNNING
    account = engine.stop("done")
    rows = assert_whole(account, engine, account.triggered)
    missed = [row["reason"] for row in rows if row["verdict"] == "NOT_INSPECTED"]
    assert missed == ["frame missing"] * 3


def test_pictures_that_fail_in_a_row_are_told_while_the_camera_is_asked_on(
    tmp_path: Path, no_leaks: None, caplog: pytest.LogCaptureFixture
) -> None:
    camera = ScriptedCamera([PASS])
    engine = Engine(line_config(tmp_path, trigger={"lost_after": 3}), cameras=[camera], command=STAND_IN)
    engine.start()
    wait_until(lambda: engine.ledger.snapshot().passed >= 2)
    camera.script = ["failed"]
    wait_until(lambda: engine.health.device_state("camera") == "warn")
    (device,) = (device for device in engine.status().devices if device.name == "camera")
    assert "pictures in a row failed" in device.text
    camera.script = [PASS]
    wait_until(lambda: engine.health.device_state("camera") == "ok")
    passed = engine.ledger.snapshot().passed
    wait_until(lambda: engine.ledger.snapshot().passed >= passed + 2)
    account = engine.stop("done")
    assert_whole(account, engine, account.triggered)
    assert engine.acquisition.counts["reconnects"] == 0
    assert "CAM 1: no picture of part" in caplog.text


def test_a_camera_that_hangs_on_a_picture_passes_no_part_with_it(tmp_path: Path, no_leaks: None) -> None:
    script = [PASS, (51, 0, 0), (51, 0, 0), (51, 0, 0), PASS, "failed", PASS, (51, 0, 0)]
    config = line_config(tmp_path, trigger={"reject_repeats": True})
    engine = Engine(config, parts=len(script), cameras=[ScriptedCamera(script)], command=STAND_IN)
    rows = assert_whole(run_line(engine), engine, len(script))
    repeated, good = "frame repeated", "below limit"
    assert [row["reason"] for row in rows] == [
        good, good, repeated, repeated, good, "frame failed", repeated, good
    ]  # fmt: skip
    assert engine.acquisition.counts["repeated"] == 3


def test_a_gate_that_does_not_move_holds_the_line(tmp_path: Path, no_leaks: None) -> None:
    class Stuck(SimulatedOutput):
        def write(self, on: bool) -> None:
            raise OutputError("no answer; check its supply")

    config = line_config(tmp_path, trigger={"interval_ms": 20.0})
    engine = Engine(config, cameras=[ScriptedCamera([REJECT])], gate=Stuck(), command=STAND_IN)
    engine.start()
    wait_until(lambda: engine.state()[0] is EngineState.PAUSED)
    assert (
        engine.state()[1]
        == "reject gate: part 1 was not sent to the reject lane: no answer; check its supply"
    )
    assert "device-gate" in [alarm.key for alarm in engine.health.snapshot().alarms]
    account = engine.stop("done")
    assert_whole(account, engine, account.triggered)


@pytest.mark.parametrize("what", ["model", "camera", "ports", "gate"])
def test_a_line_that_cannot_start_says_why_and_leaves_nothing(
    tmp_path: Path, no_leaks: None, what: str
) -> None:
    config = line_config(tmp_path / "data")
    camera: ScriptedCamera = ScriptedCamera([PASS])
    command = STAND_IN
    other: Engine | None = None
    if what == "model":
        command = [*STAND_IN, "--cannot-load"]
        expected = "signed by nobody we trust"
    elif what == "camera":
        camera = Unplugged([PASS])
        camera.opens = 1  # type: ignore[attr-defined]
        expected = "CAM 1: not there"
    elif what == "gate":
        gate = {"driver": "modbus", "host": "127.0.0.1", "port": 9, "timeout_ms": 200.0}
        config = line_config(tmp_path / "data", outputs={"reject_gate": gate})
        expected = "Modbus 127.0.0.1:9 unit 1: no connection within 200 ms"
    else:
        same_port = line_config(tmp_path / "other", publishing={"port": config.publishing.port})
        other = Engine(same_port, cameras=[ScriptedCamera([PASS])], command=STAND_IN)
        other.start(run=False)
        expected = "cannot be used"
    with pytest.raises(StartError, match=expected) as caught:
        Engine(config, cameras=[camera], command=command).start()
    assert "\n" not in str(caught.value)
    assert not camera.is_open
    if other:
        other.stop("done")
