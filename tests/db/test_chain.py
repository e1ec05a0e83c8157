import shutil
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import DBAPIError

from db.chain import CHAINED, ChainedTable, hashed_columns, verify
from db.models import EventKind
from db.session import Database, open_database, open_read_only
from db.writer import EventRow, PartRow, ViewRow, Writer

Recording = Callable[[Path], AbstractContextManager[tuple[Database, Writer]]]
MakePart = Callable[..., PartRow]
ROWS = 12
VIEWS = [
    ViewRow(
        camera_id=f"CAM {number}",
        frame_id=number,
        verdict="PASS",
        reason="below limit",
        score=0.5,
        limit_recheck=0.8,
        limit_reject=1.0,
        model_id="m1",
    )
    for number in (1, 2)
]


@pytest.fixture(scope="module")
def chained(
    tmp_path_factory: pytest.TempPathFactory, empty_record: Path, recording: Recording, make_part: MakePart
) -> Path:
    """A closed record with some parts and events, without the triggers: as who owns the file can have it."""
    path = Path(shutil.copy(empty_record, tmp_path_factory.mktemp("chained") / "station.db"))
    with recording(path) as (_, writer):
        parts = [
            make_part(n, score=None if n == 5 else n / 3, image_path=f"{n}.png", views=VIEWS[: n % 3])
            for n in range(1, ROWS + 1)
        ]
        events = [
            EventRow(
                unix_ns=n, kind=EventKind.ALARM, severity="low", title=f"alarm {n}", detail={"key": str(n)}
            )
            for n in range(1, ROWS + 1)
        ]
        writer.commit(parts, events)
    with closing(sqlite3.connect(path)) as connection, connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
    return path


def fault_after(path: Path, table: ChainedTable, statement: str, *values: object) -> str:
    """What `verify` says of the record once a statement was executed on it; nothing is kept."""
    with closing(sqlite3.connect(path)) as raw:
        raw.execute("PRAGMA foreign_keys = OFF")
        raw.execute(statement, values)
        raw.commit()
    with closing(open_read_only(path)) as database, database.connect() as connection:
        return verify(connection, table).fault


def flip(value: object, bit: int) -> object:
    """The value with one bit of its stored form changed."""
    if value is None:
        return 1 << (bit % 60)
    if isinstance(value, int):
        return value ^ (1 << (bit % 62))
    if isinstance(value, float):
        digits = bytearray(value.hex().encode())
        digits[4] = ord("0") if digits[4] != ord("0") else ord("8")
        return float.fromhex(digits.decode())
    data = bytearray(value if isinstance(value, bytes) else str(value).encode() or b"\0")
    data[bit // 8 % len(data)] ^= 1 << (bit % 7)
    return bytes(data) if isinstance(value, bytes) else data.decode()


@settings(max_examples=60, deadline=None)
@given(
    table=st.sampled_from(CHAINED),
    row_id=st.integers(1, ROWS),
    column=st.integers(0, 40),
    bit=st.integers(0, 512),
)
def test_any_single_bit_that_is_changed_is_found(
    chained: Path,
    tmp_path_factory: pytest.TempPathFactory,
    table: ChainedTable,
    row_id: int,
    column: int,
    bit: int,
) -> None:
    names = [*hashed_columns(table)[1:], "hash"]
    name = names[column % len(names)]
    path = Path(shutil.copy(chained, tmp_path_factory.mktemp("tampered") / "station.db"))
    with closing(sqlite3.connect(path)) as raw:
        (value,) = raw.execute(f'SELECT "{name}" FROM {table} WHERE id = ?', [row_id]).fetchone()
    changed = flip(value, bit)
    assert changed != value
    try:
        fault = fault_after(path, table, f'UPDATE {table} SET "{name}" = ? WHERE id = ?', changed, row_id)
    except sqlite3.IntegrityError:
        return  # a uid or number that another row has: refused at once
    assert fault == f"{table}: row {row_id} was changed after it was written"


@pytest.mark.parametrize("table", CHAINED)
@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("DELETE FROM {table} WHERE id = 1", "rows 1 to 1 are missing"),
        ("DELETE FROM {table} WHERE id BETWEEN 5 AND 7", "rows 5 to 7 are missing"),
        ("UPDATE {table} SET id = 99 WHERE id = 12", "rows 12 to 98 are missing"),
    ],
)
def test_rows_that_are_removed_or_renumbered_are_found(
    chained: Path, tmp_path: Path, table: ChainedTable, statement: str, fault: str
) -> None:
    path = Path(shutil.copy(chained, tmp_path / "station.db"))
    assert fault_after(path, table, statement.format(table=table)) == f"{table}: {fault}"


def test_two_rows_that_changed_places_are_found(chained: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(chained, tmp_path / "station.db"))
    with closing(sqlite3.connect(path)) as raw, raw:
        raw.execute("UPDATE part SET id = 99 WHERE id = 3")
        raw.execute("UPDATE part SET id = 3 WHERE id = 4")
    fault = fault_after(path, "part", "UPDATE part SET id = 4 WHERE id = 99")
    assert fault == "part: row 3 was changed after it was written"


def test_a_tail_that_was_cut_off_whole_is_what_the_mark_finds(chained: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(chained, tmp_path / "station.db"))
    shutil.copy(f"{chained}.mark", f"{path}.mark")
    assert fault_after(path, "part", "DELETE FROM part WHERE id > 9") == ""
    with closing(open_database(path)) as database:
        assert "part rows 10 to 12 were acknowledged and are gone" in database.loss


def test_a_rewritten_chain_is_what_the_mark_finds(
    chained: Path, tmp_path: Path, recording: Recording, make_part: MakePart
) -> None:
    path = tmp_path / "station.db"
    with recording(path) as (_, writer):
        writer.commit([make_part(n, verdict="PASS", lot="forged") for n in range(1, ROWS + 1)])
    shutil.copy(f"{chained}.mark", f"{path}.mark")
    with closing(open_database(path)) as database:
        assert "part row 12 is not the one that was acknowledged" in database.loss


@pytest.mark.parametrize("table", CHAINED)
@pytest.mark.parametrize(
    "statement", ["UPDATE {table} SET uid = 'x'", "DELETE FROM {table}", "DELETE FROM chain"]
)
def test_the_database_itself_refuses_edits(
    database_path: Path,
    recording: Recording,
    make_part: MakePart,
    table: ChainedTable,
    statement: str,
) -> None:
    with recording(database_path) as (database, writer):
        event = EventRow(unix_ns=1, kind=EventKind.STOP, severity="info", title="t")
        writer.commit([make_part(1)], [event])
        assert database.engine is not None
        with (
            pytest.raises(DBAPIError, match=r"append-only|only rises"),
            database.engine.begin() as connection,
        ):
            connection.exec_driver_sql(statement.format(table=table))
        with database.connect() as connection:
            assert verify(connection, table).rows == 1
