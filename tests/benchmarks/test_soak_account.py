"""The account of a soak finds each disagreement; a storm's own arithmetic."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import replace

import pytest

from benchmarks.soak_account import PlcBook, Row, account, recoveries
from benchmarks.storm import Fault
from benchmarks.supervised_line import End
from benchmarks.vital_signs import Life, VitalSigns, children, is_gone
from drivers.ladder import LadderCounts

PASS = Row("PASS", "below limit", 0.5, 0.9, 10**9)
LATE = Row("NOT_INSPECTED", "deadline passed", None, 0.9, 2 * 10**9)


class Soak:
    """Three parts, all in order: one passed, one late, one that no engine heard."""

    def __init__(self) -> None:
        self.book = PlcBook()
        for trigger, good in ((1, True), (2, False), (3, False)):
            self.book.sorted(1, trigger, good)
        self.book.session_ended(LadderCounts(triggered=3), 0)
        told = ["started 5", "heard a 1 1", "recorded a", "heard b 1 2", "recorded b", "ended 2 2"]
        self.told = [line.split() for line in told]
        self.rows = {"a": PASS, "b": LATE}
        self.wrong: list[str] = []

    def faults(self) -> list[str]:
        found: list[str] = account(self.book, [End("SIGTERM", 0, self.told)], self.rows, self.wrong)["faults"]
        return found


def test_an_exact_account() -> None:
    soak = Soak()
    assert soak.faults() == []
    found = account(soak.book, [End("", 0, soak.told)], soak.rows, [])
    assert found["parts_triggered_by_the_plc"] == 3
    assert found["to_the_good_lane"] == found["rows_pass"] == found["rows_not_inspected"] == 1
    assert found["rejected_unseen_no_engine_heard_them"] == 1
    assert found["uninspected_parts_passed"] == 0


def unheard_part_passes(soak: Soak) -> None:
    soak.book.lanes[1, 3] = True


def late_part_passes(soak: Soak) -> None:
    soak.book.lanes[1, 2] = True


def pass_at_the_limit(soak: Soak) -> None:
    soak.rows["a"] = PASS._replace(score=0.9)


def pass_without_a_score(soak: Soak) -> None:
    soak.rows["a"] = PASS._replace(score=None)


def acknowledged_row_is_lost(soak: Soak) -> None:
    soak.told.remove(["ended", "2", "2"])  # killed: only the acknowledgement still asks for the row
    del soak.rows["b"]


def row_of_an_orderly_run_is_lost(soak: Soak) -> None:
    soak.told.remove(["recorded", "b"])
    del soak.rows["b"]


def passed_part_has_no_row(soak: Soak) -> None:
    soak.told = [words for words in soak.told if words[0] == "heard"]  # killed before it was recorded
    del soak.rows["a"]


def row_of_nothing(soak: Soak) -> None:
    soak.rows["c"] = LATE


def row_missing_at_stop(soak: Soak) -> None:
    soak.told[-1] = ["ended", "3", "2"]


def plc_lost_a_part(soak: Soak) -> None:
    soak.book.sessions = [(replace(soak.book.sessions[0][0], triggered=4), 0)]


def part_sorted_twice(soak: Soak) -> None:
    soak.book.sorted(1, 1, True)


def chain_broken(soak: Soak) -> None:
    soak.wrong = ["part: row 1 was changed after it was written"]


@pytest.mark.parametrize(
    ("happens", "told"),
    [
        (unheard_part_passes, "the line never took it"),
        (late_part_passes, "NOT_INSPECTED, deadline passed"),
        (pass_at_the_limit, "PASS, below limit, score 0.9"),
        (pass_without_a_score, "score None"),
        (acknowledged_row_is_lost, "acknowledged, and not in the record: b"),
        (row_of_an_orderly_run_is_lost, "not killed, and without a row: b"),
        (passed_part_has_no_row, "part a is in the good lane and has no row"),
        (row_of_nothing, "never triggered: c"),
        (row_missing_at_stop, "3 parts triggered and 2 rows"),
        (plc_lost_a_part, "triggered 4 parts, sorted 3"),
        (part_sorted_twice, "1 twice"),
        (chain_broken, "row 1 was changed"),
    ],
)
def test_each_disagreement_is_found(happens: Callable[[Soak], None], told: str) -> None:
    soak = Soak()
    happens(soak)
    (fault,) = soak.faults()
    assert told in fault


def test_a_row_lost_with_a_killed_engine_is_counted_while_its_part_was_rejected() -> None:
    soak = Soak()
    soak.told = [words for words in soak.told if words != ["recorded", "b"] and words[0] != "ended"]
    del soak.rows["b"]
    found = account(soak.book, [End("SIGKILL", -9, soak.told)], soak.rows, [])
    assert found["faults"] == []
    assert found["rejected_and_their_row_lost_with_a_killed_engine"] == 1


def test_recovery_is_the_time_to_the_next_part_that_passes() -> None:
    second = 10**9
    rows = {name: PASS._replace(triggered_unix_ns=at) for name, at in (("a", second), ("b", 4 * second))}
    faults = [Fault("lost", 0, 2 * second), Fault("lost", 0, 3 * second), Fault("last", 0, 9 * second)]
    assert recoveries(faults, rows) == {
        "last": {"times": 1, "median_s": None, "longest_s": None},
        "lost": {"times": 2, "median_s": 2.0, "longest_s": 2.0},
    }


def test_memory_that_grows_has_a_slope_behind_the_warm_up() -> None:
    life = Life("engine", 0.0)
    for at_s in range(0, 600, 10):
        life.at_s.append(float(at_s))
        life.resident_mb.append(300.0 if at_s < 60 else 100.0 + at_s / 60)
    assert life.slope_mb_per_h(60.0, 120.0) == pytest.approx(60.0)
    assert life.slope_mb_per_h(60.0, 1e4) is None


def test_vital_signs_of_this_process() -> None:
    signs = VitalSigns()
    signs.sample("test", os.getpid())
    life = signs.lives[os.getpid()]
    assert life.resident_mb[0] > 10
    assert life.threads[0] >= 1
    assert life.files[0] >= 3
    assert not is_gone(os.getpid())
    with subprocess.Popen(["sleep", "60"]) as child:
        assert child.pid in children(os.getpid())
        child.kill()
    assert is_gone(child.pid)
    signs.sample("gone", child.pid)
    assert child.pid not in signs.lives
