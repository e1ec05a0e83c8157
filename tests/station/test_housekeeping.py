"""Old pictures and rows go, backups are made, while the line runs; what fails is an alarm, no verdict."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from line_runs import PASS, REJECT, assert_whole, wait_until
from scripted_line import ROOT, STAND_IN, ScriptedCamera, free_port, line_config

from db.archive import Archive
from db.backup import backups
from db.chain import read_faults
from db.session import open_read_only
from station.cli import main
from station.config import load_config
from station.engine import Engine
from station.types import Alarm, EngineState
from station.yaml_source import ConfigError

OFTEN = {"every_minutes": 0.001, "backup_hours": 0.0001}
DAY_NS = 86_400 * 10**9


def running(
    tmp_path: Path, record: dict[str, object] | None = None, **keep: object
) -> tuple[Engine, Callable[[], None]]:
    config = line_config(
        tmp_path / "data",
        trigger={"interval_ms": 10.0},
        record=record or {},
        housekeeping=OFTEN | keep,
    )
    engine = Engine(config, cameras=[ScriptedCamera([PASS, REJECT])], command=STAND_IN)

    def end() -> None:
        account = engine.stop("done")
        assert_whole(account, engine, account.triggered)
        assert account.passed >= account.triggered // 2 - 1
        assert engine.fault == ""

    return engine, end


def alarm(engine: Engine, key: str) -> Alarm | None:
    return next((alarm for alarm in engine.health.snapshot().alarms if alarm.key == key), None)


def test_a_running_line_is_backed_up_and_its_old_pictures_go(tmp_path: Path, no_leaks: None) -> None:
    archive = Archive(tmp_path / "data" / "images")
    image_rgb = np.zeros((8, 8, 3), np.uint8)
    for uid, days in (("old-pass", 40), ("old-reject", 400), ("young-reject", 40)):
        archive.store(uid, time.time_ns() - days * DAY_NS, image_rgb, None, uid.endswith("reject"))
    engine, end = running(tmp_path, record={"pass_image_every": 1}, backups_kept=2)
    engine.start()
    folder = engine.config.backup_folder
    wait_until(lambda: len(backups(folder)) == 2)
    first = backups(folder)[0]
    wait_until(lambda: first not in backups(folder))
    assert engine.state()[0] is EngineState.RUNNING
    assert [alarm.title for alarm in engine.health.snapshot().alarms] == [
        "PICTURES: 3 that no row names kept, as they may be all that is left of their parts"
    ]
    end()
    kept = {path.name for path in archive.root.rglob("*") if path.is_file()}
    assert "young-reject.png" in kept
    assert not {"old-pass.jpg", "old-reject.png"} & kept
    assert len(kept) > 10, "young pictures stay"
    assert len(backups(folder)) == 2
    database = open_read_only(backups(folder)[-1])
    with database.connect() as connection:
        assert read_faults(connection) == []
        rows = connection.exec_driver_sql("SELECT count(*) FROM part").scalar_one()
    database.close()
    assert 0 < rows <= engine.ledger.snapshot().rows
    assert not list((tmp_path / "data").glob("backup-under-way*"))


def test_beyond_the_bytes_the_pictures_of_passed_parts_go_first(tmp_path: Path) -> None:
    engine, end = running(tmp_path, record={"pass_image_every": 1}, backup_hours=0.0, max_images_gb=0.001)
    archive = Archive(engine.config.images_dir)
    noise = np.random.default_rng(1).integers(0, 255, (300, 300, 3)).astype(np.uint8)
    for number in range(6):
        archive.store(f"r{number}", time.time_ns() - 2 * DAY_NS, noise, None, number % 2 == 0)
    engine.start()
    wait_until(lambda: not list(archive.hours()[0].glob("*.jpg")))
    end()
    assert {path.name for path in archive.root.rglob("r?.*")} == {"r0.png", "r2.png", "r4.png"}
    assert backups(engine.config.backup_folder) == []


def test_old_rows_go_in_steps_and_the_rest_verifies(tmp_path: Path) -> None:
    engine, _ = running(tmp_path, backup_hours=0.0, row_days=1e-5)
    engine.start()
    database = None
    try:
        wait_until(lambda: engine.ledger.snapshot().rows > 100)
        database = open_read_only(engine.config.database_path)

        def first_row() -> int:
            assert database is not None
            with database.connect() as connection:
                return int(connection.exec_driver_sql("SELECT coalesce(min(id), 0) FROM part").scalar_one())

        wait_until(lambda: first_row() > 50)
        with database.connect() as connection:
            assert read_faults(connection) == []
    finally:
        if database:
            database.close()
        account = engine.stop("done")
    assert account.triggered == account.rows


def test_a_backup_that_fails_is_an_alarm_and_clears_when_it_works_again(tmp_path: Path) -> None:
    engine, end = running(tmp_path)
    folder = engine.config.backup_folder
    folder.parent.mkdir()
    folder.write_text("a file where the folder should be")
    engine.start()
    wait_until(lambda: alarm(engine, "backup") is not None)
    told = alarm(engine, "backup")
    assert told is not None
    assert (told.priority, told.active) == ("medium", True)
    assert told.title.startswith("BACKUP: ")
    assert engine.state()[0] is EngineState.RUNNING
    before = engine.ledger.snapshot().passed
    wait_until(lambda: engine.ledger.snapshot().passed > before + 5)
    folder.unlink()
    wait_until(lambda: bool(backups(folder)))
    wait_until(lambda: not any(alarm.active for alarm in engine.health.snapshot().alarms))
    end()


def test_housekeeping_that_dies_leaves_the_line_running(tmp_path: Path) -> None:
    engine, end = running(tmp_path)

    def broken(problems: object) -> None:
        raise ZeroDivisionError("a fault of this program")

    engine.upkeep.housekeeping._on_chores = broken
    engine.start()
    wait_until(lambda: alarm(engine, "stage-housekeeping") is not None)
    before = engine.ledger.snapshot().passed
    wait_until(lambda: engine.ledger.snapshot().passed > before + 5)
    assert engine.state()[0] is EngineState.RUNNING
    end()


def test_a_line_is_restored_from_its_backup_and_runs_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "config.yaml"
    text = (ROOT / "config.yaml").read_text()
    path.write_text(
        text.replace("data_dir: station-data", "data_dir: data").replace("17800", str(free_port()))
    )
    engine, end = running(tmp_path)
    engine.start()
    wait_until(lambda: bool(backups(engine.config.backup_folder)))
    backup = backups(engine.config.backup_folder)[-1]
    kept = Path(os.fspath(tmp_path / backup.name))
    kept.write_bytes(backup.read_bytes())
    assert main(["restore", str(kept), "--config", str(path)]) == 2
    assert "another station is writing here" in capsys.readouterr().err
    end()
    assert main(["restore", str(kept), "--config", str(path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"restored  {kept}: ")
    (aside,) = (tmp_path / "data").glob("replaced-*")
    assert (aside / "station.db").is_file()
    again, end_again = running(tmp_path)
    again.start()
    lost = alarm(again, "record-loss")
    assert lost is not None and "were acknowledged and are gone" in lost.title
    wait_until(lambda: again.ledger.snapshot().rows > 5)
    end_again()


def test_a_start_on_lost_rows_keeps_their_pictures(tmp_path: Path) -> None:
    engine, end = running(tmp_path)
    engine.start()
    wait_until(lambda: engine.ledger.snapshot().rows > 10)
    first = set(backups(engine.config.backup_folder))
    wait_until(lambda: len(set(backups(engine.config.backup_folder)) - first) > 1)
    early = backups(engine.config.backup_folder)[-1].read_bytes()  # begun behind some pictures
    before = engine.ledger.snapshot().reject
    wait_until(lambda: engine.ledger.snapshot().reject > before + 5)
    end()
    pictures = set(engine.config.images_dir.rglob("*.png"))
    for path in engine.config.database_path.parent.glob("station.db-*"):
        path.unlink()
    engine.config.database_path.write_bytes(early)  # by hand, without `station restore`
    again, end_again = running(tmp_path, backup_hours=0.0)
    again.start()
    end_again()
    assert alarm(again, "record-loss") is not None
    assert pictures <= set(again.config.images_dir.rglob("*.png"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("pass_image_days: 30 ", "pass_image_days: 400 ", "housekeeping.pass_image_days"),
        ("other_image_days: 365 ", "other_image_days: 0 ", "housekeeping.other_image_days"),
        ("max_images_gb: 100 ", "max_images_gb: 0 ", "housekeeping.max_images_gb"),
        ("backups_kept: 7 ", "backups_kept: 0 ", "housekeeping.backups_kept"),
        ("port: 17810 ", "port: 70000 ", "metrics.port"),
        ("level: INFO ", "level: info ", "log.level"),
    ],
)
def test_settings_out_of_range_are_named_with_their_place(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    text = (ROOT / "config.yaml").read_text()
    assert old in text
    path = tmp_path / "config.yaml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=rf"config.yaml:\d+:\d+: {message}"):
        load_config(path)


def test_the_folder_of_backups_is_relative_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text((ROOT / "config.yaml").read_text().replace("# backup_folder: ", "backup_folder: "))
    assert load_config(path).backup_folder == tmp_path / "backups"
