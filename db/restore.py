"""Put a copy of the record in its place: one that somebody chose, or, where SQLite cannot use the record any
more, the youngest that is whole.

Nothing that is replaced is lost: the old database, and pictures that no row names then, are moved aside. The
new one is made ready beside the record and takes its place at the end; who is killed on the way begins again.
The high-water mark stays, so that the next opening says which rows were acknowledged once and are not there.
"""

import logging
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import create_engine, func, select

from db.archive import Archive, sync_folder
from db.backup import backups, check_pages, copy_whole, unchanging
from db.chain import ChainedTable, read_faults
from db.errors import RecordDamaged, RecordMissing, RecordNewer, record_errors
from db.mark import mark_path
from db.models import Part
from db.queries import read_known_files
from db.salvage import take_over
from db.session import REVISION, open_database, read_revision, refuse_newer
from db.writer import Writer, lock_for_writing, lock_path

log = logging.getLogger(__name__)

_DATABASE_FILES = ("", "-wal", "-shm")


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


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a recovery did.

    Attributes:
        backup: the one that was used; None = none was whole, the record began empty.
        taken: rows that the damaged record still gave, by table.
        aside: folder of the damaged record; None where there was nothing left of it.
    """

    backup: Path | None
    taken: Mapping[ChainedTable, int]
    aside: Path | None


def restore(backup: Path, database_path: Path, archive: Archive, aside: Path) -> Restored:
    """Put a backup in the record's place.

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
    with record_errors(database_path), _room_beside(database_path) as temporary:
        _fetch(backup, temporary)
        known, parts, newest_unix_ns = _read_copy(temporary, backup)
        went, pictures = _put_in_place(temporary, database_path, archive, known, aside)
    return Restored(parts, newest_unix_ns, went, pictures)


def recover(
    database_path: Path,
    backup_folder: Path,
    archive: Archive,
    aside: Path,
    *,
    read_from: Path | None = None,
    pending: Collection[str] = (),
    between_steps: Callable[[], None] = lambda: None,
) -> Recovered:
    """Replace a record that is damaged, or gone, by its youngest whole backup, or else by an empty one, and
    all rows behind it that can still be read.

    Args:
        database_path: nobody has it open.
        backup_folder: see `db.backup`.
        archive: its pictures; those no row names then are moved aside.
        aside: a folder that does not exist yet, on the record's disk.
        read_from: what shows the damaged record's rows, instead of its own file; may be missing.
        pending: pictures that rows to come will name.
        between_steps: called at least every few seconds; what it raises ends the work, and nothing was
            changed.

    Raises:
        RecordLocked: another program writes the record.
        DiskFull, RecordReadOnly: nothing was changed.
    """
    with record_errors(database_path), _room_beside(database_path) as temporary:
        backup = _fetch_youngest(backup_folder, temporary, between_steps)
        database = open_database(temporary)
        with closing(database), closing(Writer(replace(database, loss=""))) as writer:
            source = read_from if read_from and read_from.exists() else database_path
            taken = take_over(source, writer, between_steps)
            with writer.connection.begin():
                known = read_known_files(writer.connection) | set(pending)
        went, _ = _put_in_place(temporary, database_path, archive, known, aside)
    return Recovered(backup, taken, went)


@contextmanager
def _room_beside(database_path: Path) -> Iterator[Path]:
    """Where the new database is made ready, while no other program can write the record."""
    database_path.parent.mkdir(parents=True, exist_ok=True)
    lock_fd = lock_for_writing(database_path)
    temporary = database_path.with_name(database_path.name + ".restoring")
    try:
        _clear(temporary)
        yield temporary
    finally:
        _clear(temporary)
        os.close(lock_fd)


def _clear(database_path: Path) -> None:
    """Remove a database with all that lies beside it."""
    for path in (*_files(database_path), mark_path(database_path), lock_path(database_path)):
        path.unlink(missing_ok=True)


def _files(database_path: Path) -> list[Path]:
    return [database_path.with_name(database_path.name + suffix) for suffix in _DATABASE_FILES]


def _fetch(backup: Path, temporary: Path, between_steps: Callable[[], None] = lambda: None) -> None:
    """A copy of a backup whose pages are in order, upgraded where an older version wrote it."""
    with record_errors(backup):
        check_pages(backup, between_steps)
        with closing(sqlite3.connect(unchanging(backup), uri=True)) as raw:
            revision = read_revision(raw)
    if not revision:
        raise RecordDamaged(f"{backup}: a database, but no record of a station; take another file")
    refuse_newer(backup, revision)
    copy_whole(backup, temporary, between_steps)
    if revision != REVISION:
        open_database(temporary).close()


def _fetch_youngest(folder: Path, temporary: Path, between_steps: Callable[[], None]) -> Path | None:
    for backup in reversed(backups(folder)):
        try:
            _fetch(backup, temporary, between_steps)
        except (RecordDamaged, RecordMissing, RecordNewer) as error:
            log.error("not used: %s", error)
        else:
            return backup
    return None


def _put_in_place(
    temporary: Path, database_path: Path, archive: Archive, known: set[str], aside: Path
) -> tuple[Path | None, int]:
    """Let the new database take the record's place; where what it replaces went, and how many pictures."""
    replaced = [path for path in _files(database_path) if path.exists()]
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
        try:
            moved.parent.mkdir(parents=True, exist_ok=True)
            path.rename(moved)
        except OSError as error:  # gone meanwhile, or on another disk: it hurts nobody where it is
            log.warning("%s stays where it is: %s", path, error)
    return (aside if replaced or unknown else None), len(unknown)


def _read_copy(copy: Path, backup: Path) -> tuple[set[str], int, int | None]:
    """Every picture that a row names, how many parts there are, and when the last was triggered."""
    engine = create_engine(f"sqlite:///{unchanging(copy)}&uri=true")
    try:
        with record_errors(backup), engine.connect() as connection:
            if faults := read_faults(connection):
                raise RecordDamaged(f"{backup}: {faults[0]}; take an older backup")
            statement = select(func.count(), func.max(Part.triggered_unix_ns))
            parts, newest_unix_ns = connection.execute(statement).one()
            return read_known_files(connection), parts, newest_unix_ns
    finally:
        engine.dispose()
