"""A database that is damaged, moved or gone, at the start and under a running line: the record comes back by
itself, parts go on being judged, no number is given twice, and the operator is told what is gone."""

import os
import shutil
from contextlib import closing
from pathlib import Path

import pytest
from line_runs import PASS, REJECT, assert_whole, run_line, wait_until
from scripted_line import STAND_IN, ScriptedCamera, line_config

from db.backup import backups
from db.chain import read_faults
from db.session import open_database, open_read_only
from db.writer import PartRow, Writer
from station.config import StationConfig
from station.engine import Engine
from station.types import EngineState

FIRST, SECOND, THIRD = 30, 40, 20


def line(config: StationConfig, parts: int | None = None) -> Engine:
    return Engine(config, parts=parts, cameras=[ScriptedCamera([PASS, REJECT])], command=STAND_IN)


def alarms(engine: Engine) -> dict[str, str]:
    return {alarm.key: alarm.title for alarm in engine.health.snapshot().alarms}


def ask(config: StationConfig, question: str) -> list[object]:
    with closing(open_read_only(config.database_path)) as database, database.connect() as connection:
        assert read_faults(connection) == []
        return list(connection.exec_driver_sql(question).scalars())


def grow(config: StationConfig, parts: int) -> None:
    """A record of so many parts, about 2 kB each."""
    with closing(open_database(config.database_path)) as database, closing(Writer(database)) as writer:
        writer.start_run(
            "early", station="S", version="1", config_sha256="c", model_id="m", started_unix_ns=1
        )
        rows = [
            PartRow(
                uid=f"early-{seq}",
                run_id="early",
                part_seq=seq,
                camera_id="CAM 1",
                frame_id=seq,
                triggered_unix_ns=seq,
                shift_key="2026-11-24 A",
                lot="L" * 2000,
                recipe="r",
                user="",
                verdict="PASS",
                reason="below limit",
                score=0.5,
                limit_recheck=0.9,
                limit_reject=1.0,
                model_id="m",
                latency_ms=30.0,
            )
            for seq in range(1, parts + 1)
        ]
        writer.commit(rows)


def quick(data_dir: Path) -> StationConfig:
    return line_config(data_dir, trigger={"interval_ms": 10.0}, housekeeping={"backup_hours": 0.0})


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> StationConfig:
    """A line that has run twice, and was backed up between."""
    config = quick(tmp_path_factory.mktemp("ran") / "data")
    run_line(line(config, FIRST))
    config.backup_folder.mkdir()
    shutil.copy(config.database_path, config.backup_folder / "station-20261124T120000Z.db")
    run_line(line(config, SECOND))
    return config


@pytest.fixture
def config(ran: StationConfig, tmp_path: Path) -> StationConfig:
    shutil.copytree(ran.station.data_dir, tmp_path / "data")
    return quick(tmp_path / "data")


@pytest.mark.parametrize("backup", ["a backup", "no backup"])
def test_a_line_starts_on_a_damaged_database(config: StationConfig, backup: str, no_leaks: None) -> None:
    if backup == "no backup":
        shutil.rmtree(config.backup_folder)
    damaged = b"this is no database" * 1000
    config.database_path.write_bytes(damaged)
    pictures = {path.name for path in config.images_dir.rglob("*.png")}
    engine = line(config, THIRD)
    account = run_line(engine)
    told = alarms(engine)
    kept = FIRST if backup == "a backup" else 0
    assert "not a usable database" in told["record-damaged"]
    assert ("from station-20261124T120000Z.db" if kept else "without a backup") in told["record-damaged"]
    assert f"part rows {kept + 1} to {FIRST + SECOND} were acknowledged and are gone" in told["record-loss"]
    rows = assert_whole(account, engine, THIRD)
    assert [row["part_seq"] for row in rows] == list(range(FIRST + SECOND + 1, FIRST + SECOND + THIRD + 1))
    assert len(ask(config, "SELECT id FROM part")) == kept + THIRD
    recorded = ask(config, "SELECT title FROM event WHERE kind = 'alarm'")
    assert told["record-damaged"] in recorded
    assert "The record has lost rows" in recorded
    (aside,) = config.database_path.parent.glob("replaced-*")
    assert (aside / "station.db").read_bytes() == damaged
    found = {path.name for folder in (config.images_dir, aside) for path in folder.rglob("*.png")}
    assert pictures <= found
    again = line(config, 1)
    run_line(again)
    assert alarms(again) == {}


def test_a_damaged_page_costs_nothing_that_was_backed_up(config: StationConfig) -> None:
    with config.database_path.open("r+b") as file:  # behind the first page, which says what the others are
        file.seek(4096 * 5)
        file.write(os.urandom(4096 * 3))
    engine = line(config, THIRD)
    account = run_line(engine)
    assert "record-damaged" in alarms(engine)
    assert_whole(account, engine, THIRD)
    seqs = ask(config, "SELECT part_seq FROM part")
    assert seqs == sorted(set(seqs))
    assert set(range(1, FIRST + 1)) <= set(seqs)


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_database_that_is_taken_from_a_running_line(
    config: StationConfig, how: str, no_leaks: None
) -> None:
    engine = line(config)
    engine.start()
    wait_until(lambda: engine.ledger.snapshot().rows >= 10)
    before = engine.ledger.snapshot()
    other = config.database_path.with_name("other")
    other.write_bytes(b"no database")
    other.rename(config.database_path)
    if how == "removed":
        config.database_path.unlink()
    wait_until(lambda: "record-damaged" in alarms(engine))
    wait_until(lambda: engine.ledger.snapshot().rows >= before.triggered + 20)
    assert engine.state()[0] is EngineState.RUNNING
    assert engine.health.device_state("record") == "ok"
    account = engine.stop("done")
    told = alarms(engine)
    assert "moved, removed or replaced" in told["record-damaged"]
    assert "record-loss" not in told, "what SQLite still held open is all taken over"
    assert_whole(account, engine, account.triggered)
    assert len(ask(config, "SELECT id FROM part")) == FIRST + SECOND + account.triggered
    assert not config.database_path.with_name("damaged.db").exists()
    assert told["record-damaged"] in ask(config, "SELECT title FROM event WHERE kind = 'alarm'")


def test_damage_under_a_running_line_is_found_by_its_backup(tmp_path: Path, no_leaks: None) -> None:
    """Old pages rot where no commit looks; the copy shows them, and an earlier one replaces them."""
    config = line_config(
        tmp_path / "data",
        trigger={"interval_ms": 10.0},
        housekeeping={"every_minutes": 0.002, "backup_hours": 0.00001},
    )
    grow(config, 1500)
    assert config.database_path.stat().st_size > 3_000_000, "more than the writer keeps in memory"
    engine = line(config)
    engine.start()
    wait_until(lambda: bool(backups(config.backup_folder)))
    data = config.database_path.read_bytes()
    old_rows = [at for at in range(300 * 4096, 500 * 4096, 4096) if data[at] == 13]  # leaves of the table
    with config.database_path.open("r+b") as file:
        for at in old_rows[:5]:
            file.seek(at)
            file.write(os.urandom(4096))
    wait_until(lambda: "record-damaged" in alarms(engine))
    before = engine.ledger.snapshot()
    wait_until(lambda: engine.ledger.snapshot().rows >= before.triggered + 10)
    assert engine.state()[0] is EngineState.RUNNING
    account = engine.stop("done")
    assert_whole(account, engine, account.triggered)
    assert "record-loss" not in alarms(engine)
    assert len(ask(config, "SELECT id FROM part")) == 1500 + account.triggered


def test_pictures_that_are_missing_or_that_no_row_names_are_told_at_the_start(
    config: StationConfig, no_leaks: None
) -> None:
    pictures = sorted(config.images_dir.rglob("*.png"))
    pictures[-1].unlink()
    pictures[0].with_name("unknown.png").write_bytes(b"x")
    engine = line(config, 2)
    account = run_line(engine)
    assert_whole(account, engine, 2)
    name = pictures[-1].relative_to(config.images_dir).as_posix()
    title = f"PICTURES: 1 named by a row and not there, as {name}; 1 that no row names removed"
    assert alarms(engine) == {"pictures": title}
    assert title in ask(config, "SELECT title FROM event WHERE kind = 'alarm'")
