"""Both at their smallest, with real processes and real kills."""

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from benchmarks.kill import KillTrials
from benchmarks.load import one_rate


@pytest.mark.slow
def test_a_trial_kills_and_looks_and_a_row_that_is_gone_is_found(tmp_path: Path) -> None:
    trials = KillTrials(tmp_path)
    trials.kill_once(0.5, random.Random(1))
    results = trials.results()
    assert results["exact"], trials.faults
    assert results["killed_under_way"] == 1
    assert 0 < results["rows_acknowledged"] <= results["rows_in_the_record"]
    with closing(sqlite3.connect(tmp_path / "data" / "station.db")) as connection:
        for (trigger,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        connection.execute("DELETE FROM part WHERE id = 1")
        connection.commit()
    next((tmp_path / "data").rglob("*.png")).unlink()
    trials.look()
    found = trials.results()
    assert not found["exact"]
    assert found["acknowledged_rows_lost"] == found["chains_broken"] == 1


@pytest.mark.slow
def test_the_load_is_counted_from_both_ends() -> None:
    found = one_rate(40, 3, 1.0, (64, 64))
    assert found["triggered"] == found["rows"] == found["acknowledged"] == found["parts"] == 120
    assert sum(found["verdicts"].values()) == 120
    assert found["verdicts"].get("NOT_INSPECTED", 0) == sum(found["not_judged"].values())
    assert 0 < found["ms"]["overhead"][0] < found["ms"]["overhead"][2]
    assert found["ms"]["think"][0] >= 1.0
    assert found["exit_status"] == 0
    assert 0 < found["verdicts_on_screen"] <= 120
