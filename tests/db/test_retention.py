import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select
from sqlalchemy.exc import DBAPIError

from db.archive import Archive
from db.backup import back_up
from db.chain import verify
from db.errors import RecordError
from db.models import Hourly, Part
from db.retention import ImageRetention, expire_images, expire_rows
from db.session import Database, open_database
from db.writer import PartRow, Writer

Recording = Callable[[Path], AbstractContextManager[tuple[Database, Writer]]]
MakePart = Callable[..., PartRow]
NOW_NS = 1_795_521_600 * 10**9  # 2026-11-24 12:00 UTC
DAY_NS = 86_400 * 10**9
IMAGE_RGB = np.zeros((16, 16, 3), np.uint8)


@settings(max_examples=15, deadline=None)
@given(
    ages=st.lists(st.integers(0, 30), min_size=1, max_size=30),
    keep=st.integers(0, 31),
    most=st.integers(1, 9),
)
def test_the_oldest_rows_go_and_the_rest_still_verifies(
    empty_record: Path,
    tmp_path_factory: pytest.TempPathFactory,
    recording: Recording,
    make_part: MakePart,
    ages: list[int],
    keep: int,
    most: int,
) -> None:
    ages.sort(reverse=True)
    path = Path(shutil.copy(empty_record, tmp_path_factory.mktemp("rows") / "station.db"))
    rows = [make_part(n, triggered_unix_ns=NOW_NS - age * DAY_NS) for n, age in enumerate(ages, 1)]
    with recording(path) as (database, writer):
        writer.commit(rows)
        gone = 0
        while step := expire_rows(writer, "part", NOW_NS - keep * DAY_NS, most):
            assert step <= most
            gone += step
        assert gone == sum(age > keep for age in ages)
        writer.commit([make_part(len(rows) + 1, triggered_unix_ns=NOW_NS)])
        with database.connect() as connection:
            check = verify(connection, "part")
            assert (check.rows, check.fault) == (len(rows) - gone + 1, "")
            assert connection.execute(select(func.sum(Hourly.parts))).scalar() == len(rows) + 1
    with closing(open_database(path)) as database:
        assert database.loss == ""


def test_the_floor_never_falls_and_guards_what_is_above_it(
    database_path: Path, recording: Recording, make_part: MakePart
) -> None:
    with recording(database_path) as (_, writer):
        writer.commit([make_part(n, triggered_unix_ns=n) for n in range(1, 6)])
        assert expire_rows(writer, "part", 3) == 2
        for statement in ("UPDATE chain SET floor_id = 1", "DELETE FROM part WHERE id = 3"):
            with pytest.raises(DBAPIError, match=r"only rises|append-only"), writer.connection.begin():
                writer.connection.exec_driver_sql(statement)
        assert expire_rows(writer, "part", 3) == 0
        assert expire_rows(writer, "event", 3) == 0


def store(archive: Archive, uid: str, age_days: float, *, lossless: bool) -> None:
    archive.store(uid, NOW_NS - int(age_days * DAY_NS), IMAGE_RGB, np.ones((4, 4), np.float32), lossless)


def names(archive: Archive) -> set[str]:
    return {path.name for path in archive.root.rglob("*.*")}


def test_pictures_go_by_class_and_age(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "images")
    for age_days in (1, 10, 100):
        store(archive, f"pass{age_days}", age_days, lossless=False)
        store(archive, f"reject{age_days}", age_days, lossless=True)
    expire_images(archive, ImageRetention(pass_days=7, other_days=90, max_bytes=10**9), NOW_NS)
    assert names(archive) == {
        *("pass1.jpg", "pass1.map.png", "reject1.png", "reject1.map.png"),
        *("pass10.map.png", "reject10.png", "reject10.map.png"),
    }


def test_beyond_the_bytes_passed_pictures_go_first_and_then_the_oldest(tmp_path: Path) -> None:
    archive = Archive(tmp_path / "images")
    for age_days in (1, 2, 3):
        store(archive, f"pass{age_days}", age_days, lossless=False)
        store(archive, f"reject{age_days}", age_days, lossless=True)
    size = sum(path.stat().st_size for path in archive.root.rglob("*.*"))
    expire_images(archive, ImageRetention(pass_days=9, other_days=9, max_bytes=size - 1), NOW_NS)
    assert "pass3.jpg" not in names(archive) and {"pass2.jpg", "reject3.png"} <= names(archive)
    newest = sum(path.stat().st_size for path in archive.hours()[-1].iterdir() if path.suffix == ".png")
    expire_images(archive, ImageRetention(pass_days=9, other_days=9, max_bytes=newest), NOW_NS)
    assert names(archive) == {"pass1.map.png", "reject1.png", "reject1.map.png"}
    expire_images(archive, ImageRetention(pass_days=9, other_days=9, max_bytes=0), NOW_NS)
    assert names(archive) == set()


def test_what_is_being_written_stays_and_empty_hours_go(tmp_path: Path) -> None:
    archive = Archive(tmp_path)
    store(archive, "old", 400, lossless=True)
    store(archive, "new", 0, lossless=True)
    old, new = archive.hours()
    (new / "next.png.tmp").write_bytes(bytes(1000))
    hours = 0

    def pause() -> None:
        nonlocal hours
        hours += 1

    assert expire_images(archive, ImageRetention(pass_days=1, other_days=30, max_bytes=0), NOW_NS, pause) == 4
    assert not old.exists()
    assert [path.name for path in new.iterdir()] == ["next.png.tmp"]
    assert hours >= 2


def test_a_retention_that_keeps_passes_longer_is_refused() -> None:
    with pytest.raises(ValueError, match="pass_days must be 0 to other_days"):
        ImageRetention(pass_days=9, other_days=8, max_bytes=1)
    with pytest.raises(ValueError, match="max_bytes"):
        ImageRetention(pass_days=1, other_days=8, max_bytes=-1)


def test_a_backup_under_load_holds_every_row_and_verifies(
    database_path: Path, tmp_path: Path, recording: Recording, make_part: MakePart
) -> None:
    target = tmp_path / "backups" / "station.db"
    with recording(database_path) as (_, writer):
        writer.commit([make_part(n, lot="x" * 500) for n in range(1, 3001)])
        number = 3000

        def commit_more() -> None:
            nonlocal number
            number += 1
            writer.commit([make_part(number)])

        back_up(writer, target, commit_more)
        assert number > 3001
        back_up(writer, target)  # again, in place of the first
        rows = number
        with closing(open_database(target)) as copy, copy.connect() as connection:
            check = verify(connection, "part")
            assert (check.rows, check.fault) == (rows, "")
            assert connection.execute(select(func.count()).select_from(Part)).scalar() == rows
    assert not list(target.parent.glob("*.tmp"))


def test_a_backup_that_cannot_be_written_leaves_the_last_one(
    database_path: Path, tmp_path: Path, recording: Recording
) -> None:
    (tmp_path / "backups").write_text("a file where the folder should be")
    with recording(database_path) as (_, writer):
        with pytest.raises(RecordError, match="backups"):
            back_up(writer, tmp_path / "backups" / "station.db")
        writer.commit([])
