"""Copy the record while it is being written; check, keep and count the copies. `db.restore` puts them back.

The copy is made by the writing connection itself: a backup by another connection starts again from the
beginning at every commit, and never ends under load. Between steps the writer goes on committing; what it
commits meanwhile is part of the copy. It is made beside the record and only then taken to the folder of
backups, so that a slow or lost network drive there never holds up the writer.
"""

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

from db.archive import sync_folder
from db.errors import record_errors
from db.session import refuse_damaged, sqlite_connection
from db.writer import Writer

_PAGES_PER_STEP = 256  # 1 MiB: a few milliseconds
_CHUNK_BYTES = 1 << 20
_NAME = "station-%Y%m%dT%H%M%SZ.db"
_PATTERN = f"station-{'[0-9]' * 8}T{'[0-9]' * 6}Z.db"
_STEPS_BETWEEN_LOOKS = 100_000  # of SQLite's virtual machine: milliseconds


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

    with record_errors(path), closing(sqlite3.connect(unchanging(path), uri=True)) as copy:
        copy.set_progress_handler(look, _STEPS_BETWEEN_LOOKS)
        try:
            refuse_damaged(path, copy)
        except sqlite3.OperationalError:
            if ended:
                raise ended[0] from None
            raise


def file_away(
    copy: Path, folder: Path, name: str, kept: int, between_steps: Callable[[], None] = lambda: None
) -> Path:
    """Move a copy into the folder of backups, let go of the oldest there; its new path.

    Args:
        copy: of the record; it is gone afterwards.
        folder: on another disk, best; created.
        name: see `backup_name`.
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
            copy_whole(copy, target, between_steps)
            copy.unlink()
        sync_folder(folder)
        for old in backups(folder)[:-kept]:
            if old != target:  # after a step of the clock the others may seem younger
                old.unlink()
    return target


def backup_name(unix_s: float) -> str:
    """The name of a backup made at a moment: it sorts by age."""
    return datetime.fromtimestamp(unix_s, UTC).strftime(_NAME)


def backup_unix_s(backup: Path) -> float:
    """When a backup was made, by its name; 0 where that is no date."""
    with suppress(ValueError):
        return datetime.strptime(backup.name, _NAME).replace(tzinfo=UTC).timestamp()
    return 0.0


def backups(folder: Path) -> list[Path]:
    """The backups in a folder, oldest first."""
    return sorted(folder.glob(_PATTERN))


def unchanging(path: Path) -> str:
    """A file that nobody writes to, as SQLite opens it without leaving anything beside it."""
    return f"{path.absolute().as_uri()}?mode=ro&immutable=1"


def copy_whole(source: Path, target: Path, between_steps: Callable[[], None]) -> None:
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
