"""What the record can do wrong. Messages are one line: the file, what is wrong, what to do.

RecordError
|-- RecordMissing   there is no database at this path
|-- RecordReadOnly  the folder or file cannot be written
|-- RecordLocked    another process is writing
|-- RecordNewer     written by a newer version of this program
|-- RecordOlder     not upgraded yet, and opened for reading only
|-- RecordDamaged   not a database, or corrupt
|   `-- RecordContradicted  a row contradicts an earlier one; the database is in order
`-- DiskFull        no space left; nothing was half-written
"""

import errno
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError


class RecordError(Exception):
    """Any failure of the record."""


class RecordMissing(RecordError):
    """There is no database at this path."""


class RecordReadOnly(RecordError):
    """The folder or file cannot be written."""


class RecordLocked(RecordError):
    """Another process holds the record for writing."""


class RecordNewer(RecordError):
    """The database was written by a newer version of this program."""


class RecordOlder(RecordError):
    """The database has not been upgraded yet, and was opened for reading only."""


class RecordDamaged(RecordError):
    """The file is not a database, is corrupt, or is gone."""


class RecordContradicted(RecordDamaged):
    """A row contradicts an earlier one, and was refused; the database is in order."""


class DiskFull(RecordError):
    """No space is left; nothing was half-written."""


_PRIMARY_CODE = 0xFF  # the low byte of an extended SQLite result code


@contextmanager
def record_errors(path: Path) -> Iterator[None]:
    """Turn failures of SQLite and of the file system at `path` into this tree."""
    try:
        yield
    except OSError as error:
        raise _from_os(path, error) from error
    except sqlite3.Error as error:
        raise _from_sqlite(path, error) from error
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error):
            raise _from_sqlite(path, error.orig) from error
        raise


def _from_os(path: Path, error: OSError) -> RecordError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(path)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return read_only(path)
    look = "the disk" if error.errno == errno.EIO else "data_dir in the configuration"
    return RecordError(f"{error.filename or path}: {error.strerror or error}; check {look}")


def _from_sqlite(path: Path, error: sqlite3.Error) -> RecordError:
    kind: type[RecordError]
    code = getattr(error, "sqlite_errorcode", 0) & _PRIMARY_CODE
    match code:
        case sqlite3.SQLITE_FULL:
            return disk_full(path)
        case sqlite3.SQLITE_IOERR if _free_bytes(path) == 0:
            return disk_full(path)
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return read_only(path)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            kind, text = RecordLocked, "another process is writing; stop the other station or wait for it"
        case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
            advice = "move it away, or restore the last backup there"
            kind, text = RecordDamaged, f"not a usable database ({error}); {advice}"
        case sqlite3.SQLITE_CONSTRAINT:
            kind, text = RecordContradicted, f"rows that contradict the record were refused whole ({error})"
        case _:
            kind, text = RecordError, f"{error}; check the disk and the permissions of {path.parent}"
    return kind(f"{path}: {text}")


def disk_full(path: Path) -> DiskFull:
    """The error for a disk without space."""
    return DiskFull(
        f"{path}: no space left on the disk ({_free_bytes(path)} bytes free); free some, then retry"
    )


def read_only(path: Path) -> RecordReadOnly:
    """The error for a file or folder that cannot be written."""
    return RecordReadOnly(
        f"{path}: cannot be opened for writing; give this user write access to {path.parent}, "
        "or check the disk"
    )


def _free_bytes(path: Path) -> int:
    folder = path
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return -1
