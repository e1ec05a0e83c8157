"""Copy the record while it is being written, and put a copy back in its place.

The copy is made by the writing connection itself: a backup by another connection starts again from the
beginning at every commit, and never ends under load. Between steps the writer goes on committing; what it
commits meanwhile is part of the copy. It is made beside the record and only then taken to the folder of
backups, so that a slow or lost network drive there never holds up the writer.

Nothing a restore replaces is lost: old database, and pictures whose rows the backup does not hold, are moved
aside.
"""

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import create_engine, func, select

from db.archive import Archive, sync_folder
from db.chain import read_faults
from db.errors import RecordDamaged, RecordMissing, record_errors
from db.models import Part
from db.queries import read_known_files
from db.session import REVISION, open_database, read_revision, refuse_newer, sqlite_connection
from db.writer import Writer, lock_for_writing

_PAGES_PER_STEP = 256  # 1 MiB: a few milliseconds
_CHUNK_BYTES = 1 << 20
_STEPS_BETWEEN_LOOKS = 100_000  # of SQLite's virtual machine: milliseconds
_DATABASE_FILES = ("", "-wal", "-shm")


def back_up(writer: Writer, target: Path, between_steps: Callable[[], None] = lambda: None) -> None:
    """Write a complete copy of the record to `target`; it appears whole or not at all, and replaces an older
    one.

    Args:
        writer: between commits, on its thread.
        target: its folder is created.
        between_steps: called after each MiB, e.g. to commit what has come in; must not take the backup's
            thread away. What it raises ends the backup.

    Raises:
        DiskFull, RecordReadOnly: no copy was made; an older one is untouched.
    """
    temporary = target.with_name(target.name + ".tmp")
    with record_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(temporary)) as copy:
                sqlite_connection(writer.connection).backup(
                    copy, pages=_PAGES_PER_STEP, progress=lambda *_: between_steps(), sleep=0
                )
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def check_pages(path: Path, between_steps: Callable[[], None] = lambda: None) -> None:
    """Whether SQLite finds every page of a copy in order. Touches nothing.

    Args:
        path: nobody writes to it.
        between_steps: called every few milliseconds; what it raises ends the check.

    Raises:
        RecordDamaged: it does not.
    """
    ended: list[BaseException] = []

    def look() -> bool:
        try:
            between_steps()
        except BaseException as error:  # noqa: BLE001 - sqlite3 would swallow it
            ended.append(error)
        return bool(ended)

    with record_errors(path), closing(sqlite3.connect(_unchanging(path), uri=True)) as copy:
        copy.set_progress_handler(look, _STEPS_BETWEEN_LOOKS)
        try:
            (found,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError:
            if ended:
                raise ended[0] from None
            raise
    if found != "ok":
        raise RecordDamaged(f"{path}: the copy is damaged ({' '.join(found.split())}); take an older one")


def file_away(
    copy: Path, folder: Path, name: str, kept: int, between_steps: Callable[[], None] = lambda: None
) -> Path:
    """Move a copy into the folder of backups, let go of the oldest there; its new path.

    Args:
        copy: of the record; it is gone afterwards.
        folder: on another disk, best; created.
        name: `station-` and a UTC time, as in station-20261124T120000Z.db: it sorts by age.
        kept: so many stay, this one included.
        between_steps: called after each MiB on the way to another disk; what it raises ends it.

    Raises:
        DiskFull, RecordReadOnly: the folder is as it was.
    """
    target = folder / name
    with record_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            copy.replace(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _copy(copy, target, between_steps)
            copy.unlink()
        sync_folder(folder)
        for old in backups(folder)[:-kept]:
            old.unlink()
    return target


def backups(folder: Path) -> list[Path]:
    """The backups in a folder, oldest first."""
    return sorted(folder.glob("station-[0-9]*T[0-9]*Z.db"))


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did.

    Attributes:
        parts: rows in the record now.
        newest_unix_ns: when the last of them was triggered; None when there is none.
        aside: folder of what was replaced; None where there was nothing.
        pictures: how many pictures and maps went there.
    """

    parts: int
    newest_unix_ns: int | None
    aside: Path | None
    pictures: int


def restore(backup: Path, database_path: Path, archive: Archive, aside: Path) -> Restored:
    """Put a backup in the record's place. The high-water mark stays, so that the next start says which
    rows were acknowledged once and are not in it.

    Args:
        backup: checked before anything is touched: pages, version, both chains; it stays where it is.
        database_path: of the record; its folder is created.
        archive: its pictures; those no row of the backup names are moved aside.
        aside: a folder that does not exist yet, on the record's disk.

    Raises:
        RecordLocked: the station is running.
        RecordMissing, RecordDamaged, RecordNewer: not a backup that can be used; nothing was changed.
        DiskFull, RecordReadOnly: nothing was changed.
    """
    if not backup.is_file():
        raise RecordMissing(f"{backup}: no backup here; name one of the files in the folder of backups")
    with record_errors(database_path):
        database_path.parent.mkdir(parents=True, exist_ok=True)
        lock_fd = lock_for_writing(database_path)
        temporary = database_path.with_name(database_path.name + ".restoring")
        try:
            with record_errors(backup):
                check_pages(backup)
            _copy(backup, temporary, lambda: None)
            known, parts, newest_unix_ns = _read_copy(temporary, backup)
            replaced = [database_path.with_name(database_path.name + suffix) for suffix in _DATABASE_FILES]
            replaced = [path for path in replaced if path.exists()]
            unknown = [
                path
                for hour in archive.hours()
                for path in hour.iterdir()
                if path.relative_to(archive.root).as_posix() not in known
            ]
            if replaced or unknown:
                aside.mkdir(parents=True)
            for path in replaced:
                path.rename(aside / path.name)
            temporary.rename(database_path)
            sync_folder(database_path.parent)
            for path in unknown:
                moved = aside / archive.root.name / path.relative_to(archive.root)
                moved.parent.mkdir(parents=True, exist_ok=True)
                path.rename(moved)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(lock_fd)
    return Restored(parts, newest_unix_ns, aside if replaced or unknown else None, len(unknown))


def _read_copy(copy: Path, backup: Path) -> tuple[set[str], int, int | None]:
    """Every picture that a row names, how many parts there are, and when the last was triggered. A copy that
    an older version wrote is upgraded."""
    with record_errors(backup), closing(sqlite3.connect(_unchanging(copy), uri=True)) as raw:
        revision = read_revision(raw)
        if not revision:
            raise RecordDamaged(f"{backup}: a database, but no record of a station; take another file")
        refuse_newer(backup, revision)
    if revision != REVISION:
        open_database(copy).close()
    engine = create_engine(f"sqlite:///{_unchanging(copy)}&uri=true")
    try:
        with record_errors(backup), engine.connect() as connection:
            if faults := read_faults(connection):
                raise RecordDamaged(f"{backup}: {faults[0]}; take an older backup")
            statement = select(func.count(), func.max(Part.triggered_unix_ns))
            parts, newest_unix_ns = connection.execute(statement).one()
            return read_known_files(connection), parts, newest_unix_ns
    finally:
        engine.dispose()


def _unchanging(path: Path) -> str:
    """A file that nobody writes to, as SQLite opens it without leaving anything beside it."""
    return f"{path.absolute().as_uri()}?mode=ro&immutable=1"


def _copy(source: Path, target: Path, between_steps: Callable[[], None]) -> None:
    """A copy that appears whole or not at all, and is on the disk."""
    temporary = target.with_name(target.name + ".tmp")
    try:
        with source.open("rb") as read, temporary.open("wb") as written:
            while chunk := read.read(_CHUNK_BYTES):
                written.write(chunk)
                between_steps()
            written.flush()
            os.fsync(written.fileno())
        shutil.copystat(source, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
