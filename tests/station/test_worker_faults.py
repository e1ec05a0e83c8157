"""A worker that does what it should not: each fault is real, in the real worker process."""

import os
import signal
import time
from pathlib import Path

import pytest
from line_runs import PASS, assert_whole, run_line, wait_until
from scripted_line import STAND_IN, ScriptedCamera, line_config
from standin import FAULTS

from db.session import open_read_only
from station.engine import Engine
from station.types import EngineState

NO_RESULT = {
    "infinite": "score not finite",
    "nan": "score not finite",
    "nan map": "score not finite",
    "no map": "worker error",
    "huge map": "worker error",
    "error": "worker error",
}


def test_no_part_passes_on_what_is_no_result(tmp_path: Path, no_leaks: None) -> None:
    script = [part for fault in NO_RESULT for part in ((50, 0, FAULTS[fault]), PASS)]
    engine = Engine(
        line_config(tmp_path), parts=len(script), cameras=[ScriptedCamera(script)], command=STAND_IN
    )
    rows = assert_whole(run_line(engine), engine, len(script))
    assert [row["reason"] for row in rows[0::2]] == list(NO_RESULT.values())
    assert [row["verdict"] for row in rows[1::2]] == ["PASS"] * len(NO_RESULT), "the next part is inspected"
    assert engine.worker_restarts == 0


@pytest.mark.parametrize(
    ("fault", "reason", "alarm"),
    [
        ("out of memory", "worker error", "MemoryError: Unable to allocate 1.00 GiB"),
        (
            "out of GPU memory",
            "worker error or deadline passed",
            "OutOfMemoryError: CUDA out of memory. Tried",
        ),
        ("garbage", "worker down", "worker sent what is no message: Invalid JSON"),
        ("oversized", "worker down", "worker sent a message of more than 65536 bytes"),
        ("another part", "worker down", "answered for part 999999, which it was not given"),
        ("map out of bounds", "worker down", "the worker's map cannot be used: "),
        ("ready again", "worker down", "worker said twice that it is ready"),
        ("flood", "score not finite", "answered for part 2, which it was not given"),
    ],
)
def test_a_worker_that_cannot_be_trusted_is_replaced(
    tmp_path: Path, no_leaks: None, fault: str, reason: str, alarm: str
) -> None:
    camera = ScriptedCamera([PASS, (50, 0, FAULTS[fault])] + [PASS] * 10_000)
    slow_import = {"hang_ms": 30_000.0}  # of torch, which says what GPUs lack
    config = line_config(tmp_path, trigger={"interval_ms": 40.0}, inspection=slow_import)
    engine = Engine(config, cameras=[camera], command=STAND_IN)
    engine.start()
    wait_until(lambda: engine.ledger.snapshot().passed > 2)
    account = engine.stop("done")
    rows = assert_whole(account, engine, account.triggered)
    assert engine.fault == ""
    assert engine.worker_restarts == 1
    assert rows[1]["verdict"] == "NOT_INSPECTED"
    assert rows[1]["reason"] in reason.split(" or ")
    (told,) = [alarm.title for alarm in engine.health.snapshot().alarms if alarm.key == "device-worker"]
    assert alarm in told
    assert "\n" not in told


def test_ready_falls_while_no_worker_can_start_and_rises_by_itself(tmp_path: Path, no_leaks: None) -> None:
    """Killed, and its model file gone: each next worker dies at its start, until the file is back."""
    bundle = tmp_path / "model.json"
    bundle.write_text("{}")
    config = line_config(tmp_path / "data", trigger={"interval_ms": 40.0})
    engine = Engine(config, cameras=[ScriptedCamera([PASS])], command=[*STAND_IN, "--bundle", str(bundle)])
    engine.start()
    assert engine.signals().ready
    wait_until(lambda: engine.ledger.snapshot().passed > 2)
    bundle.unlink()
    assert engine.worker_pid is not None
    os.kill(engine.worker_pid, signal.SIGKILL)
    wait_until(lambda: engine.worker_restarts >= 3)
    signals = engine.signals()
    assert (signals.ready, signals.fault) == (False, True)
    assert engine.state()[0] is EngineState.FAULT
    bundle.write_text("{}")
    wait_until(lambda: engine.signals().ready)
    before = engine.ledger.snapshot().passed
    wait_until(lambda: engine.ledger.snapshot().passed > before)
    account = engine.stop("done")
    rows = assert_whole(account, engine, account.triggered)
    assert {row["reason"] for row in rows} == {"below limit", "worker down"}
    database = open_read_only(config.database_path)
    with database.connect() as connection:
        told = connection.exec_driver_sql(
            "SELECT title FROM event WHERE kind = 'state' ORDER BY id"
        ).scalars()
        states = [title.split(":")[0] for title in told]
    database.close()
    assert states[:3] == ["READY", "RUNNING", "FAULT"]
    assert states[-3:] == ["RUNNING", "STOPPING", "STOPPED"]


def test_a_worker_that_hangs_while_the_line_stops_does_not_keep_it(tmp_path: Path, no_leaks: None) -> None:
    config = line_config(tmp_path, inspection={"hang_ms": 300.0, "deadline_ms": 200.0})
    engine = Engine(config, cameras=[ScriptedCamera([(50, 0, FAULTS["hang"])])], command=STAND_IN)
    engine.start()
    wait_until(lambda: engine.ledger.snapshot().triggered > 0)
    begun_s = time.monotonic()
    account = engine.stop("done")
    assert time.monotonic() - begun_s < 10
    assert_whole(account, engine, account.triggered)
    assert account.passed == 0
