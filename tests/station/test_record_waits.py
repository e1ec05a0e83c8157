"""A record that cannot be written for a while: verdicts do not wait for it, the operator is told, and every
row comes as soon as it can."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from line_runs import PASS, REJECT, assert_whole, wait_until
from scripted_line import STAND_IN, ScriptedCamera, line_config

import db.session
import station.engine
from db.queries import read_known_files
from db.session import open_read_only
from station.config import StationConfig
from station.engine import Engine, StartError
from station.keeping import part_uid
from station.types import EngineState

LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


def running(config: StationConfig, script: list[tuple[int, int, int]]) -> Engine:
    engine = Engine(config, cameras=[ScriptedCamera(script)], command=STAND_IN)  # type: ignore[arg-type]
    engine.start()
    wait_until(lambda: engine.ledger.snapshot().rows >= 5)
    return engine


def alarms(engine: Engine) -> dict[str, str]:
    return {alarm.key: alarm.title for alarm in engine.health.snapshot().alarms if alarm.active}


def ask(config: StationConfig, question: str) -> list[tuple[object, ...]]:
    with closing(open_read_only(config.database_path)) as database, database.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(question)]


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program holds the database for itself."""
    with subprocess.Popen(
        [sys.executable, "-c", LOCK, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"locked\n"
        yield
        assert program.stdin is not None
        program.stdin.close()


@pytest.mark.parametrize("patience_s", [10.0, 0.3])
def test_a_locked_database_holds_up_rows_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience_s: float, no_leaks: None
) -> None:
    monkeypatch.setattr(db.session, "BUSY_TIMEOUT_S", patience_s)
    config = line_config(tmp_path, trigger={"interval_ms": 20.0})
    engine = running(config, [PASS, REJECT])
    with locked(config.database_path):
        before = engine.ledger.snapshot()
        if patience_s < 1:
            wait_until(lambda: "device-record" in alarms(engine))
            assert "another process is writing" in alarms(engine)["device-record"]
        wait_until(lambda: engine.ledger.snapshot().passed >= before.passed + 20)
        held = engine.ledger.snapshot()
        assert held.balanced()
        assert held.rows <= before.rows + 10, "what was on its way"
        assert engine.state()[0] is EngineState.RUNNING
        assert patience_s < 1 or not alarms(engine)
    wait_until(lambda: engine.ledger.snapshot().rows >= held.triggered)
    assert alarms(engine) == {}
    account = engine.stop("done")
    assert_whole(account, engine, account.triggered)
    titles = [title for (title,) in ask(config, "SELECT title FROM event WHERE kind = 'alarm'")]
    assert [title.startswith("RECORD FAULT: ") for title in titles] == [True] * (patience_s < 1)


@contextmanager
def blocked_picture(engine: Engine) -> Iterator[None]:
    """The file of a picture to come opens as slowly as its other end."""
    pipes: list[Path] = []
    part_seq = engine.ledger.snapshot().triggered + 100 | 1  # every odd one is a reject
    for ahead_s in (0, 600):
        hour = datetime.fromtimestamp(datetime.now(UTC).timestamp() + ahead_s, UTC).strftime("%Y/%m/%d/%H")
        folder = engine.config.images_dir / hour
        folder.mkdir(parents=True, exist_ok=True)
        pipe = folder / f"{part_uid(engine.run_id, part_seq)}.png.tmp"
        if pipe not in pipes:
            os.mkfifo(pipe)
            pipes.append(pipe)
    try:
        yield
    finally:
        for pipe in pipes:
            os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))


@contextmanager
def frozen_disk(engine: Engine) -> Iterator[None]:
    """Nothing that is written comes to an end."""
    disk = engine.config.station.data_dir.parent
    subprocess.run(["fsfreeze", "--freeze", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", disk], check=True)


def a_disk_that_stalls(data_dir: Path, stall: object) -> None:
    config = line_config(data_dir, trigger={"interval_ms": 15.0}, record={"max_pending_images": 5})
    engine = running(config, [REJECT, PASS])
    with stall(engine):  # type: ignore[operator]
        wait_until(lambda: engine.recording.images_shed >= 20)
        assert "the disk is too slow" in alarms(engine)["device-record"]
        held = engine.ledger.snapshot()
        wait_until(lambda: engine.ledger.snapshot().passed >= held.passed + 20)
        after = engine.ledger.snapshot()
        assert after.balanced()
        assert after.rows == held.rows, "the disk does stall"
        assert engine.recording.waiting_images <= 5
        assert engine.state()[0] is EngineState.RUNNING
    wait_until(lambda: engine.ledger.snapshot().rows >= after.triggered)
    account = engine.stop("done")
    assert_whole(account, engine, account.triggered)
    rows = ask(config, "SELECT verdict, image_path IS NULL, image_shed FROM part")
    assert all(missing == shed for verdict, missing, shed in rows if verdict != "PASS"), "missing silently"
    assert sum(bool(shed) for _, _, shed in rows) == engine.recording.images_shed
    with closing(open_read_only(config.database_path)) as database, database.connect() as connection:
        assert all((config.images_dir / path).is_file() for path in read_known_files(connection))


def test_a_picture_that_takes_for_ever_to_store_sheds_others(tmp_path: Path, no_leaks: None) -> None:
    a_disk_that_stalls(tmp_path / "data", blocked_picture)


def test_a_frozen_disk_sheds_pictures_and_holds_up_rows_alone(real_disk: Path, no_leaks: None) -> None:
    a_disk_that_stalls(real_disk / "data", frozen_disk)


def test_a_lost_folder_of_pictures_sheds_them_and_is_told(tmp_path: Path, no_leaks: None) -> None:
    config = line_config(tmp_path / "data", trigger={"interval_ms": 20.0})
    engine = running(config, [REJECT, PASS])
    away = config.images_dir.rename(tmp_path / "away")
    config.images_dir.write_text("a file where the folder should be")
    wait_until(lambda: "device-record" in alarms(engine))
    assert "pictures are shed, rows are kept: " in alarms(engine)["device-record"]
    before = engine.ledger.snapshot()
    wait_until(lambda: engine.ledger.snapshot().rows >= before.triggered + 10)
    assert engine.state()[0] is EngineState.RUNNING
    config.images_dir.unlink()
    away.rename(config.images_dir)
    wait_until(lambda: alarms(engine) == {})
    account = engine.stop("done")
    assert_whole(account, engine, account.triggered)
    rows = ask(config, "SELECT image_path IS NULL, image_shed FROM part WHERE verdict <> 'PASS' ORDER BY id")
    assert all(missing == shed for missing, shed in rows), "missing silently"
    assert rows[0] == rows[-1] == (0, 0)
    assert (1, 1) in rows


def test_a_disk_that_turns_read_only_under_a_running_line(
    real_disk: Path, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    """As after an error of the disk: parts are judged, what was acknowledged stays, the rest is counted."""
    monkeypatch.setattr(station.engine, "_RECORD_STOP_S", 0.5)
    config = line_config(real_disk / "data", trigger={"interval_ms": 20.0})
    engine = running(config, [PASS, REJECT])
    subprocess.run(["mount", "-o", "remount,abort", real_disk], check=False, capture_output=True)
    try:
        wait_until(lambda: "device-record" in alarms(engine))
        before = engine.ledger.snapshot()
        wait_until(lambda: engine.ledger.snapshot().passed >= before.passed + 10)
        assert "check the disk" in alarms(engine)["device-record"]
        assert engine.state()[0] is EngineState.RUNNING
    finally:
        account = engine.stop("done")
    assert account.balanced()
    assert account.triggered == account.rows + engine.recording.unrecorded
    assert engine.recording.unrecorded >= 10
    copy = real_disk.parent / "copy"
    subprocess.run(["cp", "-r", config.station.data_dir, copy], check=True)
    kept = ask(line_config(copy), "SELECT part_seq FROM part ORDER BY id")
    assert [seq for (seq,) in kept][: account.rows] == list(range(1, account.rows + 1))


def test_a_line_does_not_start_where_it_can_write_nothing(small_disk: Path, no_leaks: None) -> None:
    config = line_config(small_disk / "data")
    config.station.data_dir.mkdir()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StartError, match=r"station\.db: cannot be opened for writing; give this user write"):
        Engine(config, cameras=[ScriptedCamera([PASS])], command=STAND_IN).start()
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    engine = running(config, [PASS])
    account = engine.stop("done")
    assert_whole(account, engine, account.triggered)
