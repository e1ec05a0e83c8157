"""Parts seen by several cameras: one trigger, one verdict, one row, whatever happens to one of the views."""

import json
import os
import signal
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from line_runs import PASS, RECHECK, REJECT, assert_whole, run_line, wait_until
from scripted_line import STAND_IN, ScriptedCamera, line_config

from db.archive import Archive
from drivers.outputs import SimulatedOutput
from drivers.types import Trigger
from station.config import StationConfig
from station.engine import Engine
from station.report.build import ReportFacts, build_report
from station.shifts import ShiftWindow
from station.types import EngineState, Inspection, Reason, Verdict
from station.view import DeviceOfViews, PartJoin

LATE = {"late_ms": 2000.0}  # a busy machine is no fault


def several(tmp_path: Path, cameras: int, **changes: dict[str, object]) -> StationConfig:
    trigger = LATE | changes.pop("trigger", {})
    config = line_config(tmp_path, trigger=trigger, **changes)
    (camera,) = config.cameras
    views = tuple(replace(camera, camera_id=f"CAM {number + 1}") for number in range(cameras))
    return config.model_copy(update={"cameras": views})


def line(
    config: StationConfig, scripts: Sequence[list[object]], parts: int | None, **options: object
) -> Engine:
    cameras = [ScriptedCamera(script) for script in scripts]  # type: ignore[arg-type]
    return Engine(config, parts=parts, cameras=cameras, command=STAND_IN, **options)  # type: ignore[arg-type]


def deciding(engine: Engine, rows: list[dict[str, object]]) -> list[tuple[object, object]]:
    """(verdict, camera) of each part."""
    with closing(sqlite3.connect(engine.config.database_path)) as database:
        cameras = dict(database.execute("SELECT part_seq, camera_id FROM part"))
    return [(row["verdict"], cameras[row["part_seq"]]) for row in rows]


def test_a_part_is_as_good_as_its_worst_view(tmp_path: Path, no_leaks: None) -> None:
    scripts: list[list[object]] = [
        [PASS, PASS, REJECT, PASS, RECHECK, "failed", "failed"],
        [PASS, REJECT, PASS, RECHECK, PASS, PASS, REJECT],
        [PASS, PASS, PASS, PASS, PASS, PASS, PASS],
    ]
    gate = SimulatedOutput()
    config = several(tmp_path, 3, outputs={"gate_acts_on": "pass"})
    engine = line(config, scripts, parts=7, gate=gate)
    rows = assert_whole(run_line(engine), engine, 7)
    verdicts, cameras = zip(*deciding(engine, rows), strict=True)
    assert verdicts == ("PASS", "REJECT", "REJECT", "RECHECK", "RECHECK", "NOT_INSPECTED", "REJECT")
    assert cameras[1:] == ("CAM 2", "CAM 1", "CAM 2", "CAM 1", "CAM 1", "CAM 2")
    assert gate.count == 1
    window = ShiftWindow("now", "now", 0, time.time_ns() + 1)
    facts = ReportFacts(
        station="S",
        yield_target_percent=97.0,
        takt_ms=100.0,
        images_dir=config.images_dir,
        created_unix_ns=window.ended_unix_ns,
    )
    report = build_report(config.database_path, window, facts)
    assert (report.triggered, report.rows_total) == (7, 7), "whichever camera decided"


def test_each_view_keeps_its_picture_and_its_verdict(tmp_path: Path) -> None:
    engine = line(several(tmp_path, 2), [[PASS, PASS, "failed"], [REJECT, PASS, REJECT]], parts=3)
    run_line(engine)
    with closing(sqlite3.connect(engine.config.database_path)) as database:
        rows = database.execute("SELECT uid, image_path, views FROM part ORDER BY part_seq").fetchall()
    archive = Archive(engine.config.images_dir)
    views = [json.loads(row[2]) for row in rows]
    assert [[(view["camera_id"], view["verdict"]) for view in part] for part in views] == [
        [("CAM 1", "PASS"), ("CAM 2", "REJECT")],
        [("CAM 1", "PASS"), ("CAM 2", "PASS")],
        [("CAM 1", "NOT_INSPECTED"), ("CAM 2", "REJECT")],
    ]
    first = [archive.load_image(view["image_path"])[0, 0].tolist() for view in views[0]]
    assert first == [list(PASS), list(REJECT)]
    assert rows[0][1] == views[0][1]["image_path"], "the part's picture is the one that decided"
    assert rows[1][1] is None
    uid, image_path, _ = rows[2]
    assert [view["image_path"] for view in views[2]] == [None, image_path]
    assert Path(image_path).name == f"{uid}-2.png"


def test_a_view_whose_camera_is_lost_passes_nothing_and_comes_back(tmp_path: Path, no_leaks: None) -> None:
    scripts: list[list[object]] = [[PASS], [PASS, PASS, "lost", PASS, PASS, PASS, PASS, PASS]]
    engine = line(several(tmp_path, 2, trigger={"interval_ms": 40.0}), scripts, parts=None)
    engine.start()
    try:
        wait_until(lambda: engine.views[1].acquisition.counts["reconnects"] >= 1)
        alarms = {alarm.key: alarm.title for alarm in engine.health.snapshot().alarms}
        assert alarms["device-camera"].startswith("CAMERA FAULT: CAM 2: lost")
        passed = engine.ledger.snapshot().passed
        wait_until(lambda: engine.ledger.snapshot().passed >= passed + 3)
        assert engine.state()[0] is EngineState.RUNNING
    finally:
        account = engine.stop("test is over")
    rows = assert_whole(account, engine, account.triggered)
    lost = [row["reason"] for row in rows if row["verdict"] == "NOT_INSPECTED"]
    assert "camera lost" in lost
    assert set(lost) <= {"camera lost", "trigger missed"}
    assert set(deciding(engine, rows)) <= {("NOT_INSPECTED", "CAM 2"), ("PASS", "CAM 1"), ("PASS", "CAM 2")}
    assert engine.views[0].acquisition.counts["reconnects"] == 0


def test_each_view_has_a_worker_of_its_own(tmp_path: Path, no_leaks: None) -> None:
    engine = line(several(tmp_path, 2, trigger={"interval_ms": 40.0}), [[PASS], [PASS]], parts=None)
    engine.start()
    try:
        wait_until(lambda: engine.ledger.snapshot().passed >= 3)
        pids = [view.inspection.workers.pid for view in engine.views if view.inspection]
        assert len({*pids, None}) == 3
        os.kill(pids[1], signal.SIGKILL)  # type: ignore[arg-type]
        wait_until(lambda: engine.worker_restarts == 1)
        wait_until(lambda: engine.state()[0] is EngineState.RUNNING)
        passed = engine.ledger.snapshot().passed
        wait_until(lambda: engine.ledger.snapshot().passed >= passed + 3)
        assert engine.views[0].inspection.workers.pid == pids[0]  # type: ignore[union-attr]
    finally:
        account = engine.stop("test is over")
    rows = assert_whole(account, engine, account.triggered)
    assert {row["reason"] for row in rows} == {"below limit", "worker down"}
    assert set(deciding(engine, rows)) <= {("NOT_INSPECTED", "CAM 2"), ("PASS", "CAM 1"), ("PASS", "CAM 2")}


def inspection(part_seq: int, camera_id: str, verdict: Verdict) -> Inspection:
    reason = Reason.BELOW_LIMIT if verdict is Verdict.PASS else Reason.FRAME_FAILED
    trigger = Trigger(part_seq, camera_id, 0, 0)
    return Inspection(trigger, None, None, verdict, reason, "", None, "", decided_ns=1)


@given(st.data())
def test_each_part_gets_one_verdict_in_whatever_order_its_views_come(data: st.DataObject) -> None:
    cameras = [f"CAM {number}" for number in range(data.draw(st.integers(1, 4)))]
    parts = data.draw(st.integers(1, 5))
    views = {
        (part, camera): data.draw(st.sampled_from(list(Verdict)))
        for part in range(parts)
        for camera in cameras
    }
    told: list[Inspection] = []
    join = PartJoin(cameras, told.append)
    for part, camera in data.draw(st.permutations(list(views))):
        join.judged(inspection(part, camera, views[part, camera]))
    assert sorted(one.trigger.part_seq for one in told) == list(range(parts))
    order = [Verdict.PASS, Verdict.RECHECK, Verdict.NOT_INSPECTED, Verdict.REJECT]
    for one in told:
        verdicts = [views[one.trigger.part_seq, camera] for camera in cameras]
        assert one.verdict is max(verdicts, key=order.index)
        if len(cameras) > 1:
            assert [view.verdict for view in one.views] == verdicts


def test_several_devices_are_as_well_as_the_worst_of_them() -> None:
    told: list[tuple[str, str]] = []
    cameras = DeviceOfViews(lambda state, text: told.append((state, text))).of(["CAM 1", "CAM 2"])
    cameras["CAM 1"]("ok", "acA")
    cameras["CAM 2"]("ok", "acA")
    cameras["CAM 2"]("fault", "lost")
    cameras["CAM 1"]("ok", "acA; 1 failed")
    cameras["CAM 2"]("ok", "acA")
    assert [state for state, _ in told] == ["warn", "ok", "fault", "fault", "ok"]
    assert told[2][1] == told[3][1] == "CAM 2: lost"


@pytest.mark.parametrize(
    ("cameras", "changes", "message"),
    [
        (("CAM 1", "CAM 1"), {}, "cameras.1.camera_id 'CAM 1' is another camera's already"),
        (("CAM 1", "CAM 2"), {"model": {"views": {"CAM 3": "x"}}}, "model.views names 'CAM 3'"),
    ],
)
def test_views_that_do_not_fit_are_refused(
    tmp_path: Path, cameras: Sequence[str], changes: dict[str, dict[str, object]], message: str
) -> None:
    values = line_config(tmp_path).model_dump()
    values["cameras"] = [{"driver": "simulated", "camera_id": name} for name in cameras]
    for section, keys in changes.items():
        values[section].update(keys)
    with pytest.raises(ValueError, match=message):
        StationConfig.model_validate(values)
