"""The computer's clock is set back under a running line: parts stay in their order, and nothing is lost."""

import time
from contextlib import closing
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import pytest
from line_runs import PASS, REJECT, assert_whole, wait_until
from scripted_line import STAND_IN, ScriptedCamera, line_config

from db.backup import backups
from db.chain import read_faults
from db.session import open_read_only
from station.engine import Engine
from station.shifts import shift_at
from station.types import EngineState

HOUR_S = 3600


def test_the_clock_steps_back_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    stepped_s = 0
    clock_ns, clock = time.time_ns, time.time
    monkeypatch.setattr(time, "time_ns", lambda: clock_ns() - stepped_s * 10**9)
    monkeypatch.setattr(time, "time", lambda: clock() - stepped_s)
    config = line_config(
        tmp_path / "data",
        trigger={"interval_ms": 20.0},
        record={"pass_image_every": 1},
        housekeeping={"every_minutes": 0.002, "backup_hours": 12.0},
    )
    # The new time is in an earlier shift.
    now = datetime.fromtimestamp(clock())
    starts = [f"{now:%H:%M}", f"{datetime.fromtimestamp(clock() + 12 * HOUR_S):%H:%M}"]
    shifts = [{"name": name, "start": start} for name, start in zip("AB", starts, strict=True)]
    config = config.model_validate(config.model_dump() | {"shifts": shifts})
    engine = Engine(config, cameras=[ScriptedCamera([PASS, REJECT])], command=STAND_IN)
    engine.start()
    wait_until(lambda: len(backups(config.backup_folder)) == 1)
    wait_until(lambda: engine.ledger.snapshot().rows >= 20)
    before = engine.ledger.snapshot().triggered
    stepped_s = HOUR_S
    wait_until(lambda: engine.ledger.snapshot().rows >= before + 20)
    wait_until(lambda: len(backups(config.backup_folder)) == 2)
    made = backups(config.backup_folder)
    time.sleep(1.1)  # names of backups are told apart by the second
    after = engine.ledger.snapshot().triggered
    wait_until(lambda: engine.ledger.snapshot().rows >= after + 20)
    assert backups(config.backup_folder) == made, "one backup, not one a round, until the hour has passed"
    assert engine.state()[0] is EngineState.RUNNING
    assert engine.health.snapshot().alarms == ()
    account = engine.stop("done")
    assert sum(engine.health.snapshot().shift_counts.values()) == account.triggered
    rows = assert_whole(account, engine, account.triggered)
    assert [row["part_seq"] for row in rows] == list(range(1, account.triggered + 1))
    assert all(0 < float(str(row["latency_ms"])) < 5000 for row in rows)
    times = [int(str(row["triggered_unix_ns"])) for row in rows]
    back = [later - earlier for earlier, later in pairwise(times) if later < earlier]
    assert len(back) == 1
    assert -HOUR_S - 60 < back[0] / 1e9 < -HOUR_S + 60
    with closing(open_read_only(config.database_path)) as database, database.connect() as connection:
        assert read_faults(connection) == []
        keys = connection.exec_driver_sql("SELECT triggered_unix_ns, shift_key, image_path FROM part").all()
    assert all(key == shift_at(config.shifts, unix_ns).key for unix_ns, key, _ in keys)
    assert len({key for _, key, _ in keys}) == 2
    assert all((config.images_dir / path).is_file() for _, _, path in keys)
    again = Engine(config, parts=3, cameras=[ScriptedCamera([PASS])], command=STAND_IN)
    again.start()
    wait_until(again.done.is_set)
    rows = assert_whole(again.stop("done"), again, 3)
    assert [row["part_seq"] for row in rows] == [account.triggered + n for n in (1, 2, 3)]
