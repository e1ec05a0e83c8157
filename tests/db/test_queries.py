from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from db import queries
from db.models import EventKind
from db.session import Database
from db.writer import EventRow, PartRow, Writer

HOUR_NS = 3_600_000_000_000
START_NS = 1_790_000_000_000_000_000 // HOUR_NS * HOUR_NS
REASONS = {
    "PASS": ["below limit"],
    "RECHECK": ["above recheck limit"],
    "REJECT": ["above reject limit", "score not finite"],
    "NOT_INSPECTED": ["deadline passed", "queue full"],
}
VERDICTS = ("PASS", "PASS", "PASS", "RECHECK", "REJECT", "NOT_INSPECTED")


@pytest.fixture(scope="module")
def rows(make_part: Callable[..., PartRow]) -> list[PartRow]:
    random = np.random.default_rng(3)
    changed: list[dict[str, Any]] = [
        {
            "triggered_unix_ns": START_NS + int(random.integers(0, 6 * HOUR_NS)),
            "verdict": (verdict := str(random.choice(VERDICTS))),
            "reason": str(random.choice(["deadline passed", "queue full"]))
            if verdict == "NOT_INSPECTED"
            else verdict,
            "score": None if verdict == "NOT_INSPECTED" else float(random.random() * 2),
            "shift_key": str(random.choice(["2026-11-24 A", "2026-11-24 B"])),
            "latency_ms": float(random.random() * 100),
        }
        for _ in range(400)
    ]
    return [make_part(number, **change) for number, change in enumerate(changed, 1)]


@pytest.fixture(scope="module")
def connection(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[PartRow],
    recording: Callable[[Path], AbstractContextManager[tuple[Database, Writer]]],
) -> Iterator[Connection]:
    states = [
        EventRow(
            unix_ns=START_NS + n, kind=EventKind.STATE, severity="info", title=state, detail={"state": state}
        )
        for n, state in enumerate(("READY", "RUNNING", "PAUSED"))
    ]
    path = tmp_path_factory.mktemp("queries") / "station.db"
    with recording(path) as (database, writer):
        writer.commit(rows, states)
        with database.connect() as connection:
            yield connection


windows = st.tuples(st.integers(-HOUR_NS, 7 * HOUR_NS), st.integers(0, 7 * HOUR_NS)).map(
    lambda pair: (START_NS + pair[0], START_NS + pair[0] + pair[1])
)


@settings(max_examples=40, deadline=None)
@given(window=windows, bucket_s=st.integers(1, 7200))
def test_every_count_of_a_window_sums_to_its_parts(
    connection: Connection, rows: list[PartRow], window: tuple[int, int], bucket_s: int
) -> None:
    inside = [row for row in rows if window[0] <= row.triggered_unix_ns < window[1]]
    counts = queries.read_counts(connection, queries.verdict_counts(*window))
    assert counts == Counter(row.verdict for row in inside)
    reasons = connection.execute(queries.reason_counts(*window)).all()
    assert sum(parts for _, _, parts in reasons) == len(inside) - counts.get("PASS", 0)
    trend = connection.execute(queries.yield_trend(*window, bucket_s)).all()
    assert sum(parts for _, parts, _ in trend) == len(inside)
    assert sum(passed for _, _, passed in trend) == counts.get("PASS", 0)
    assert all((second - window[0] // 10**9) % bucket_s == 0 for second, _, _ in trend)
    assert connection.execute(queries.parts_between(*window)).mappings().all() == sorted(
        connection.execute(queries.parts_between(*window)).mappings().all(),
        key=lambda row: (row["triggered_unix_ns"], row["id"]),
    )


@given(first=st.integers(0, 6), hours=st.integers(0, 6))
def test_the_roll_up_agrees_with_the_rows(
    connection: Connection, rows: list[PartRow], first: int, hours: int
) -> None:
    window = (START_NS + first * HOUR_NS, START_NS + (first + hours) * HOUR_NS)
    expected = Counter(
        (row.triggered_unix_ns // HOUR_NS * 3600, row.verdict)
        for row in rows
        if window[0] <= row.triggered_unix_ns < window[1]
    )
    found = connection.execute(queries.hourly_counts(*window)).all()
    assert {(hour, verdict): parts for hour, verdict, parts in found} == expected


def test_shift_counts(connection: Connection, rows: list[PartRow]) -> None:
    for key in ("2026-11-24 A", "2026-11-24 B", "2026-11-25 A"):
        expected = Counter(row.verdict for row in rows if row.shift_key == key)
        assert queries.read_counts(connection, queries.shift_counts(key)) == expected


def test_latency_percentiles_are_those_of_the_inspected_parts(
    connection: Connection, rows: list[PartRow]
) -> None:
    values = [row.latency_ms for row in rows if row.verdict != "NOT_INSPECTED"]
    found = queries.read_percentiles(connection, queries.latencies(START_NS, START_NS + 6 * HOUR_NS))
    for percent in (50, 95, 99):
        assert found[f"p{percent}"] == np.percentile(values, percent, method="inverted_cdf")
    assert found["max"] == max(values)
    assert queries.read_percentiles(connection, queries.latencies(0, 1)) == {}


def test_the_newest_not_passed_and_the_worst_rejects(connection: Connection, rows: list[PartRow]) -> None:
    newest = sorted(
        (row for row in rows if row.verdict != "PASS"), key=lambda row: row.triggered_unix_ns, reverse=True
    )
    found = connection.execute(queries.last_not_passed(7)).mappings().all()
    assert [row["uid"] for row in found] == [row.uid for row in newest[:7]]
    worst = sorted((row.score or 0.0 for row in rows if row.verdict == "REJECT"), reverse=True)
    found = connection.execute(queries.worst_rejects(START_NS, START_NS + 6 * HOUR_NS, 5)).mappings().all()
    assert [row["score"] for row in found] == worst[:5]


def test_events_runs_and_rows(connection: Connection, rows: list[PartRow]) -> None:
    found = connection.execute(queries.events_between(START_NS, START_NS + 2)).mappings().all()
    assert [event["title"] for event in found] == ["READY", "RUNNING"]
    assert not connection.execute(queries.events_between(START_NS, START_NS + 2, [EventKind.ALARM])).all()
    assert connection.execute(queries.last_state_before(START_NS + 2)).mappings().one()["title"] == "RUNNING"
    assert connection.execute(queries.last_state_before(START_NS)).all() == []
    assert connection.execute(queries.rows_in_run("run-1")).scalar() == len(rows)
    assert [run.run_id for run in connection.execute(queries.runs_between(0, START_NS))] == ["run-1"]
    assert connection.execute(queries.runs_between(0, 1)).all() == []


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        (queries.last_not_passed(50), "ix_part_not_pass"),
        (queries.verdict_counts(START_NS, START_NS + 1), "ix_part_time_verdict"),
        (queries.shift_counts("2026-11-24 A"), "ix_part_shift"),
    ],
)
def test_the_screens_questions_use_their_index(connection: Connection, statement: Any, index: str) -> None:
    compiled = str(statement.compile(connection, compile_kwargs={"literal_binds": True}))
    plan = " ".join(str(row) for row in connection.exec_driver_sql("EXPLAIN QUERY PLAN " + compiled))
    assert index in plan
    assert "TEMP B-TREE FOR ORDER BY" not in plan
