"""Backups are checked, moved and counted; a restore loses nothing of what it replaces."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import numpy as np
import pytest

from db.archive import Archive
from db.backup import back_up, backups, check_pages, file_away
from db.chain import verify
from db.errors import RecordDamaged, RecordError, RecordLocked, RecordMissing, RecordNewer
from db.restore import restore
from db.session import Database, open_database
from db.writer import PartRow, Writer

Recording = Callable[[Path], AbstractContextManager[tuple[Database, Writer]]]
MakePart = Callable[..., PartRow]
IMAGE_RGB = np.zeros((4, 4, 3), np.uint8)


class Given(Exception):
    pass


def give_up() -> None:
    raise Given


@pytest.fixture
def line(
    database_path: Path, tmp_path: Path, recording: Recording, make_part: MakePart
) -> tuple[Path, Path, Archive]:
    """A record of five parts with pictures, and a backup from when there were three."""
    archive = Archive(database_path.parent / "images")
    backup = tmp_path / "elsewhere" / "station-20261124T120000Z.db"
    with recording(database_path) as (_, writer):
        for number in range(1, 6):
            part = make_part(number)
            files = archive.store(part.uid, part.triggered_unix_ns, IMAGE_RGB, None, lossless=True)
            writer.commit([make_part(number, image_path=files.image_path)])
            if number == 3:
                back_up(writer, backup)
    return database_path, backup, archive


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_restored_record_verifies_and_what_it_replaced_is_kept(
    line: tuple[Path, Path, Archive], tmp_path: Path
) -> None:
    database_path, backup, archive = line
    before = database_path.read_bytes()
    pictures = files_below(archive.root)
    aside = database_path.parent / "replaced"
    done = restore(backup, database_path, archive, aside)
    assert (done.parts, done.aside, done.pictures) == (3, aside, 2)
    assert (aside / database_path.name).read_bytes() == before
    moved = files_below(aside / "images")
    assert len(moved) == 2
    assert moved | files_below(archive.root) == pictures
    assert backup.is_file()
    with closing(open_database(database_path)) as database:
        assert "part rows 4 to 5 were acknowledged and are gone" in database.loss
        with database.connect() as connection:
            assert (verify(connection, "part").rows, verify(connection, "part").fault) == (3, "")
        with closing(Writer(database)):
            pass  # says so in the record, once
    with closing(open_database(database_path)) as database:
        assert database.loss == ""


def test_a_record_that_is_gone_or_damaged_can_be_restored(line: tuple[Path, Path, Archive]) -> None:
    database_path, backup, archive = line
    database_path.write_bytes(b"not a database at all" * 100)
    restore(backup, database_path, archive, database_path.parent / "first")
    for path in database_path.parent.glob("station.db*"):
        path.unlink()
    done = restore(backup, database_path, archive, database_path.parent / "second")
    assert (done.parts, done.aside) == (3, None)


def test_a_backup_of_an_older_version_is_upgraded(old_record: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    done = restore(old_record, folder / "station.db", Archive(folder / "images"), folder / "replaced")
    assert (done.parts, done.aside) == (3, None)
    assert files_below(folder) == {"station.db", "station.db.lock"}
    with closing(open_database(folder / "station.db")) as database, database.connect() as connection:
        assert (verify(connection, "part").rows, verify(connection, "part").fault) == (3, "")


def cut(backup: Path) -> None:
    with backup.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(8192))


def altered(backup: Path) -> None:
    with closing(sqlite3.connect(backup)) as connection, connection:
        connection.execute("DROP TRIGGER IF EXISTS part_no_update")
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("UPDATE part SET verdict = 'PASS', score = 0.5 WHERE id = 2")


def newer(backup: Path) -> None:
    with closing(sqlite3.connect(backup)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


def other(backup: Path) -> None:
    backup.unlink()
    with closing(sqlite3.connect(backup)) as connection, connection:
        connection.execute("CREATE TABLE something (else_ INTEGER)")


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (cut, RecordDamaged),
        (altered, RecordDamaged),
        (newer, RecordNewer),
        (other, RecordDamaged),
        (Path.unlink, RecordMissing),
    ],
)
def test_a_backup_that_cannot_be_used_changes_nothing(
    line: tuple[Path, Path, Archive], spoil: Callable[[Path], None], error: type[RecordError]
) -> None:
    database_path, backup, archive = line
    spoil(backup)
    before = {path: path.read_bytes() for path in database_path.parent.rglob("*") if path.is_file()}
    with pytest.raises(error):
        restore(backup, database_path, archive, database_path.parent / "replaced")
    after = {path: path.read_bytes() for path in database_path.parent.rglob("*") if path.is_file()}
    assert before == after


def test_a_record_in_use_is_not_replaced(line: tuple[Path, Path, Archive], recording: Recording) -> None:
    database_path, backup, archive = line
    with recording(database_path), pytest.raises(RecordLocked, match="another station is writing"):
        restore(backup, database_path, archive, database_path.parent / "replaced")


def test_the_oldest_backups_go_and_other_files_stay(tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / "station.db").write_text("the record itself may lie here")
    for day in range(10, 15):
        copy = tmp_path / "copy"
        copy.write_text(str(day))
        file_away(copy, folder, f"station-202611{day}T000000Z.db", 2)
        assert not copy.exists()
    assert [path.read_text() for path in backups(folder)] == ["13", "14"]
    assert (folder / "station.db").exists()


def test_a_backup_is_taken_to_another_disk_whole_or_not_at_all(tmp_path: Path) -> None:
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is only one disk here")
    folder = shm / f"varad-test-{os.getpid()}"
    copy = tmp_path / "copy"
    copy.write_bytes(bytes(3 << 20))
    try:
        with pytest.raises(Given):
            file_away(copy, folder, "station-20261124T120000Z.db", 1, give_up)
        assert list(folder.iterdir()) == []
        assert copy.exists()
        kept = file_away(copy, folder, "station-20261124T120000Z.db", 1)
        assert kept.stat().st_size == 3 << 20
        assert list(folder.iterdir()) == [kept]
        assert not copy.exists()
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


def test_a_check_can_be_given_up(line: tuple[Path, Path, Archive], tmp_path: Path) -> None:
    big = tmp_path / "big.db"
    with closing(sqlite3.connect(big)) as connection, connection:
        connection.execute("CREATE TABLE t (a)")
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 50,)] * 50_000)
        connection.execute("CREATE INDEX i ON t (a)")
    check_pages(big)
    with pytest.raises(Given):
        check_pages(big, give_up)
