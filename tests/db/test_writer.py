import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from db.chain import verify
from db.errors import RecordDamaged
from db.models import Event, EventKind, Hourly, Part, Run
from db.queries import read_known_files
from db.session import Database, open_database, open_read_only
from db.writer import EventRow, PartRow, ViewRow, Writer

Recording = Callable[[Path], AbstractContextManager[tuple[Database, Writer]]]
MakePart = Callable[..., PartRow]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
number = st.floats(allow_nan=False, allow_infinity=False)
VIEW = ViewRow(
    camera_id="CAM 2",
    frame_id=None,
    verdict="REJECT",
    reason="above limit",
    score=1.5,
    limit_recheck=0.8,
    limit_reject=1.0,
    model_id="m1",
    image_path="2.png",
    map_path="2.map.png",
)
part_rows = st.fixed_dictionaries(
    {
        "frame_id": st.none() | st.integers(0, 2**62),
        "shift_key": st.sampled_from(["2026-11-24 A", "2026-11-24 B"]),
        "lot": text,
        "user": text,
        "verdict": st.sampled_from(["PASS", "RECHECK", "REJECT", "NOT_INSPECTED"]),
        "reason": st.sampled_from(["below limit", "deadline passed"]),
        "score": st.none() | number,
        "limit_reject": number,
        "timings_ms": st.dictionaries(text, number, max_size=3),
        "image_path": st.none() | text,
        "image_shed": st.booleans(),
        "regions": st.lists(st.tuples(number, number, number, number), max_size=2),
        "triggered_unix_ns": st.integers(10**18, 10**18 + 10**13),
        "plc_part_id": st.none() | st.integers(0, 2**32 - 1),
        "views": st.lists(
            st.builds(replace, st.just(VIEW), score=st.none() | number, reason=text), max_size=2
        ),
    }
)


@pytest.fixture(scope="module")
def fresh(empty_record: Path) -> Iterator[Callable[[], Path]]:
    """A new copy of the empty record for each of hypothesis' examples."""
    with tempfile.TemporaryDirectory() as folder:
        yield lambda: Path(shutil.copy(empty_record, Path(tempfile.mkdtemp(dir=folder)) / "station.db"))


@settings(max_examples=25, deadline=None)
@given(batches=st.lists(st.lists(part_rows, max_size=6), max_size=4), data=st.data())
def test_rows_come_back_and_a_repeated_commit_changes_nothing(
    fresh: Callable[[], Path],
    recording: Recording,
    make_part: MakePart,
    batches: list[list[dict[str, Any]]],
    data: st.DataObject,
) -> None:
    numbers = iter(range(1, 1000))
    rows = [[make_part(next(numbers), **changed) for changed in batch] for batch in batches]
    flat = [row for batch in rows for row in batch]
    with recording(fresh()) as (database, writer):
        for batch in rows:
            writer.commit(batch)
            again = (
                data.draw(st.lists(st.sampled_from(flat[: flat.index(batch[-1]) + 1]), max_size=4))
                if batch
                else []
            )
            writer.commit(again + again)
        assert writer.last_part_seq() == len(flat)
        with database.connect() as connection:
            columns = [column for column in Part.__table__.columns if column.name not in ("id", "hash")]
            found = [dict(row) for row in connection.execute(select(*columns).order_by(Part.id)).mappings()]
            assert found == [row.values() for row in flat]
            hourly = connection.execute(select(func.sum(Hourly.parts))).scalar() or 0
            assert hourly == len(flat)
            check = verify(connection, "part")
            assert (check.rows, check.fault) == (len(flat), "")


def test_the_same_uid_with_other_content_is_refused_whole(
    database_path: Path, recording: Recording, make_part: MakePart
) -> None:
    with recording(database_path) as (database, writer):
        writer.commit([make_part(1)])
        with pytest.raises(RecordDamaged, match="part-1 is already recorded"):
            writer.commit([make_part(2), make_part(1, verdict="REJECT")])
        with pytest.raises(RecordDamaged, match="part-3 is already recorded"):
            writer.commit([make_part(3), make_part(3, verdict="REJECT")])
        writer.commit([make_part(2)])
        with database.connect() as connection:
            assert connection.execute(select(Part.uid)).scalars().all() == ["part-1", "part-2"]


def test_a_failed_transaction_leaves_neither_parts_nor_events(
    database_path: Path, recording: Recording, make_part: MakePart
) -> None:
    event = EventRow(
        unix_ns=1, kind=EventKind.STOP, severity="info", title="stopped", detail={"reason": "lunch"}
    )
    with recording(database_path) as (database, writer):
        with pytest.raises(RecordDamaged, match="FOREIGN KEY"):
            writer.commit([make_part(1), make_part(2, run_id="no such run")], [event])
        with database.connect() as connection:
            counts = [
                connection.execute(select(func.count()).select_from(t)).scalar()
                for t in (Part, Event, Hourly)
            ]
            assert counts == [0, 0, 0]
        writer.commit([make_part(1)], [event])
        writer.commit([], [event])
        with database.connect() as connection:
            assert connection.execute(select(Event.title, Event.detail)).all() == [
                ("stopped", {"reason": "lunch"})
            ]


def test_the_pictures_of_views_are_known(
    database_path: Path, recording: Recording, make_part: MakePart
) -> None:
    with recording(database_path) as (database, writer):
        writer.commit([make_part(1, image_path="1.png", views=[VIEW, replace(VIEW, map_path=None)])])
        with database.connect() as connection:
            assert read_known_files(connection) == {"1.png", "2.png", "2.map.png"}


def test_runs_begin_and_end(database_path: Path, recording: Recording) -> None:
    with recording(database_path) as (database, writer):
        writer.stop_run("run-1", stopped_unix_ns=9, stop_reason="by the operator")
        with database.session() as session:
            run = session.scalars(select(Run)).one()
            assert (run.started_unix_ns, run.stopped_unix_ns, run.stop_reason) == (1, 9, "by the operator")


def test_a_score_that_is_no_number_is_refused(make_part: MakePart) -> None:
    with pytest.raises(ValueError, match="score must be finite"):
        make_part(1, score=float("nan"))


def test_a_lost_wal_is_reported_and_recorded(
    tmp_path: Path, database_path: Path, recording: Recording, make_part: MakePart
) -> None:
    """The files of a running station without its -wal: what a careless copy or a repair leaves."""
    saved = tmp_path / "saved"
    saved.mkdir()
    with recording(database_path) as (_, writer):
        writer.commit([make_part(1), make_part(2)])
        shutil.copy(database_path, saved)
        shutil.copy(f"{database_path}.mark", saved)
    with closing(open_database(saved / "station.db")) as database, closing(Writer(database)) as writer:
        assert "part rows 1 to 2 were acknowledged and are gone" in database.loss
        with database.connect() as connection:
            assert connection.execute(select(Event.severity, Event.detail)).one()[0] == "high"
    with closing(open_database(saved / "station.db")) as database:
        assert database.loss == ""  # reported once; the event remains


@pytest.mark.parametrize("mark", [b"", b"garbage", b"[1]", b'{"part": 3}', b"\xff\xfe"])
def test_a_damaged_mark_is_reported(
    database_path: Path, recording: Recording, make_part: MakePart, mark: bytes
) -> None:
    with recording(database_path) as (_, writer):
        writer.commit([make_part(1)])
    mark_file = Path(f"{database_path}.mark")
    mark_file.write_bytes(mark)
    with closing(open_database(database_path)) as database:
        assert "mark is unreadable" in database.loss
    mark_file.unlink()
    with closing(open_database(database_path)) as database:
        assert "mark is missing" in database.loss


def test_readers_see_what_is_committed_beside_a_running_writer(
    database_path: Path, recording: Recording, make_part: MakePart
) -> None:
    with recording(database_path) as (_, writer), closing(open_read_only(database_path)) as beside:
        for number in range(1, 4):
            writer.commit([make_part(number)])
            with beside.connect() as connection:
                assert connection.execute(select(func.count()).select_from(Part)).scalar() == number
