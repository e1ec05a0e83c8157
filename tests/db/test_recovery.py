"""A damaged record is brought back from its backup, with every row that it still gives; none is made up."""

import errno
import os
import sqlite3
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import numpy as np
import pytest

from db.archive import Archive
from db.backup import back_up
from db.chain import read_faults
from db.errors import RecordDamaged, RecordLocked
from db.models import EventKind
from db.queries import read_known_files
from db.restore import recover
from db.retention import expire_rows
from db.session import Database, open_database
from db.writer import EventRow, PartRow, Writer

Recording = Callable[[Path], AbstractContextManager[tuple[Database, Writer]]]
MakePart = Callable[..., PartRow]
IMAGE_RGB = np.zeros((4, 4, 3), np.uint8)
PARTS, BACKED_UP = 600, 100
PAGE_BYTES = 4096


class Line:
    """A record of many parts, and a backup of its first hundred."""

    def __init__(self, path: Path, recording: Recording, make_part: MakePart) -> None:
        self.path = path
        self.backups = path.parent / "backups"
        self.archive = Archive(path.parent / "images")
        self.aside = path.parent / "replaced"
        with recording(path) as (_, writer):
            for first in range(1, PARTS, BACKED_UP):
                event = EventRow(unix_ns=first, kind=EventKind.STOP, severity="info", title="t")
                writer.commit([make_part(first + n) for n in range(BACKED_UP)], [event])
                if first == 1:
                    back_up(writer, self.backups / "station-20261124T120000Z.db")

    def recover(self) -> tuple[int, str, list[int]]:
        """How many rows were taken over, what the mark says is gone, and the parts that are there."""
        done = recover(self.path, self.backups, self.archive, self.aside)
        with closing(open_database(self.path)) as database, database.connect() as connection:
            assert read_faults(connection) == []
            seqs = connection.exec_driver_sql("SELECT part_seq FROM part ORDER BY id").scalars().all()
            hourly = connection.exec_driver_sql("SELECT coalesce(sum(parts), 0) FROM hourly").scalar()
            assert hourly == len(seqs)
            assert set(self.path.parent.glob("*.restoring*")) == set()
            return done.taken["part"], database.loss, list(seqs)

    def pages(self, table: str) -> list[int]:
        """The pages of a table's rows, in the order of the rows."""
        with closing(sqlite3.connect(self.path)) as connection:
            (root,) = connection.execute(
                "SELECT rootpage FROM sqlite_master WHERE name = ?", [table]
            ).fetchone()
        data = self.path.read_bytes()
        at = (root - 1) * PAGE_BYTES
        assert data[at] == 5, "an interior page"
        cells = int.from_bytes(data[at + 3 : at + 5], "big")
        offsets = [int.from_bytes(data[at + 12 + 2 * n : at + 14 + 2 * n], "big") for n in range(cells)]
        children = [int.from_bytes(data[at + offset : at + offset + 4], "big") for offset in offsets]
        return [*children, int.from_bytes(data[at + 8 : at + 12], "big")]

    def overwrite(self, page: int) -> None:
        with self.path.open("r+b") as file:
            file.seek((page - 1) * PAGE_BYTES)
            file.write(os.urandom(PAGE_BYTES))


@pytest.fixture
def line(database_path: Path, recording: Recording, make_part: MakePart) -> Line:
    return Line(database_path, recording, make_part)


ALL = list(range(1, PARTS + 1))


def test_damage_before_the_backup_costs_no_row(line: Line) -> None:
    line.overwrite(line.pages("part")[0])
    with pytest.raises(RecordDamaged, match=r"station\.db: "):
        open_database(line.path)
    taken, loss, parts = line.recover()
    assert (taken, loss, parts) == (PARTS - BACKED_UP, "", ALL)
    assert (line.aside / "station.db").is_file()


def test_damage_behind_the_backup_costs_the_rows_of_its_page_alone(line: Line) -> None:
    pages = line.pages("part")
    line.overwrite(pages[len(pages) // 2])
    taken, loss, parts = line.recover()
    gone = sorted(set(ALL) - set(parts))
    assert 0 < len(gone) < 30
    assert gone == list(range(gone[0], gone[-1] + 1))
    assert gone[0] > BACKED_UP
    assert taken == PARTS - BACKED_UP - len(gone)
    assert parts == sorted(parts)
    assert f"part rows {PARTS - len(gone) + 1} to {PARTS} were acknowledged and are gone" in loss


def test_a_run_that_is_no_text_any_more_costs_no_part(line: Line) -> None:
    with closing(sqlite3.connect(line.path, isolation_level=None)) as connection:
        connection.execute("UPDATE run SET version = CAST(x'ff' AS TEXT)")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    line.overwrite(line.pages("part")[0])
    assert line.recover() == (PARTS - BACKED_UP, "", ALL)


def test_what_cannot_be_moved_aside_stays_and_the_record_is_back(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = line.archive.store("unknown", 10**18, IMAGE_RGB, None, lossless=True)
    rename = Path.rename

    def refuse_pictures(path: Path, target: Path) -> Path:
        if path.suffix == ".png":
            raise OSError(errno.EXDEV, "another disk")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse_pictures)
    line.overwrite(line.pages("part")[0])
    assert line.recover()[2] == ALL
    assert (line.archive.root / str(files.image_path)).is_file()


def test_a_record_of_the_first_version_gives_its_rows_without_a_backup(old_record: Path) -> None:
    archive, aside = Archive(old_record.parent / "images"), old_record.parent / "replaced"
    done = recover(old_record, old_record.parent / "none", archive, aside)
    assert (done.backup, done.taken["part"], done.taken["event"]) == (None, 3, 2)
    with closing(open_database(old_record)) as database, database.connect() as connection:
        assert read_faults(connection) == []
        assert database.loss == ""


def test_without_a_backup_what_can_be_read_is_kept(line: Line) -> None:
    for backup in line.backups.iterdir():
        backup.unlink()
    pages = line.pages("part")
    line.overwrite(pages[3])
    taken, loss, parts = line.recover()
    assert taken == len(parts) > PARTS - 30
    assert (parts[0], parts[-1]) == (1, PARTS)
    assert "acknowledged and are gone" in loss


def test_a_first_page_that_is_gone_leaves_the_backup(line: Line) -> None:
    line.overwrite(1)
    taken, loss, parts = line.recover()
    assert (taken, parts) == (0, ALL[:BACKED_UP])
    assert f"part rows {BACKED_UP + 1} to {PARTS} were acknowledged and are gone" in loss


@pytest.mark.parametrize("backup", ["none", "damaged"])
def test_where_nothing_is_whole_an_empty_record_takes_no_number_again(
    line: Line, backup: str, recording: Recording, make_part: MakePart
) -> None:
    line.path.write_bytes(b"no database" * 1000)
    for path in line.backups.iterdir():
        path.write_bytes(b"no database either" * 1000)
        if backup == "none":
            path.unlink()
    taken, loss, parts = line.recover()
    assert (taken, parts) == (0, [])
    assert f"part rows 1 to {PARTS} were acknowledged and are gone" in loss
    for first in (PARTS + 1, PARTS + 2):  # also behind the next start
        with recording(line.path) as (_, writer):
            assert writer.last_part_seq() == first - 1
            writer.commit([make_part(first)])


def test_a_database_that_is_gone_is_brought_back(line: Line) -> None:
    line.path.unlink()
    with pytest.raises(RecordDamaged, match="the database is gone"):
        open_database(line.path)
    taken, loss, parts = line.recover()
    assert (taken, parts) == (0, ALL[:BACKED_UP])
    assert f"part rows {BACKED_UP + 1} to {PARTS} were" in loss


def test_rows_that_were_changed_are_not_taken_over(line: Line) -> None:
    with closing(sqlite3.connect(line.path)) as connection, connection:
        connection.execute("DROP TRIGGER part_no_update")
        connection.execute("UPDATE part SET verdict = 'PASS', score = 0.1 WHERE id = 300")
    _, _, parts = line.recover()
    assert sorted(set(ALL) - set(parts)) == [300]


def test_rows_behind_what_retention_removed_keep_their_numbers(line: Line, recording: Recording) -> None:
    with recording(line.path) as (_, writer):
        assert expire_rows(writer, "part", 2**62, most=250) == 250
    for backup in line.backups.iterdir():
        backup.unlink()
    line.overwrite(_index_page(line.path))
    taken, loss, parts = line.recover()
    assert (taken, loss, parts) == (350, "", ALL[250:])


def _index_page(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (root,) = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'ix_part_shift'"
        ).fetchone()
    return int(root)


def test_pictures_stay_where_a_row_names_them(line: Line, recording: Recording, make_part: MakePart) -> None:
    names = {}
    with recording(line.path) as (_, writer):
        for number in (901, 902, 903):
            part = make_part(number)
            names[number] = line.archive.store(part.uid, part.triggered_unix_ns, IMAGE_RGB, None, True)
            if number == 901:
                writer.commit([make_part(number, image_path=names[number].image_path)])
    line.overwrite(_index_page(line.path))
    pending = {name for name in (names[902].image_path,) if name}
    recover(line.path, line.backups, line.archive, line.aside, pending=pending)
    kept = {path.name for path in line.archive.root.rglob("*.png")}
    assert kept == {"part-901.png", "part-902.png"}
    assert [path.name for path in line.aside.rglob("*.png")] == ["part-903.png"]
    with closing(open_database(line.path)) as database, database.connect() as connection:
        assert read_known_files(connection) == {names[901].image_path}


def test_a_recovery_that_is_given_up_changes_nothing(line: Line) -> None:
    line.overwrite(line.pages("part")[0])
    before = {path: path.read_bytes() for path in line.path.parent.rglob("*") if path.is_file()}

    class Given(Exception):
        pass

    def give_up() -> None:
        raise Given

    with pytest.raises(Given):
        recover(line.path, line.backups, line.archive, line.aside, between_steps=give_up)
    after = {path: path.read_bytes() for path in before}
    assert after == before
    assert not list(line.path.parent.glob("*.restoring*"))


def test_a_record_in_use_is_not_recovered(line: Line, recording: Recording) -> None:
    with recording(line.path), pytest.raises(RecordLocked):
        recover(line.path, line.backups, line.archive, line.aside)


@pytest.mark.parametrize("how", ["moved", "replaced"])
def test_a_database_that_is_taken_from_its_writer_is_noticed_at_the_next_commit(
    database_path: Path, recording: Recording, make_part: MakePart, how: str
) -> None:
    with recording(database_path) as (_, writer):
        writer.commit([make_part(1)])
        database_path.rename(database_path.with_name("elsewhere.db"))
        if how == "replaced":
            database_path.write_bytes(b"")
        with pytest.raises(RecordDamaged, match="moved, removed or replaced"):
            writer.commit([make_part(2)])
