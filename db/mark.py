"""The high-water mark: the last acknowledged rows, kept outside the database.

A lost `-wal` file, or a backup put in place of the database, leaves a file that SQLite finds in perfect order
with its newest rows gone. The mark beside it remembers the id and hash of the last part and event, and the
highest part number, which no later part gets even if its row is gone; it is
written and fsynced after each commit and before its acknowledgement, so it is never ahead of a healthy
database.
"""

import json
import os
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from db.chain import CHAINED, ChainedTable, Head, floor, head

_SIZE = 256  # one padded line, inside one disk sector: overwritten in place, whole or not at all


def mark_path(database_path: Path) -> Path:
    """Where the mark of a database lies."""
    return database_path.with_name(database_path.name + ".mark")


class Mark:
    """The open mark of the one writer."""

    def __init__(self, database_path: Path) -> None:
        """Open or create it.

        Raises:
            OSError: the folder cannot be written.
        """
        self._fd = os.open(mark_path(database_path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def write(self, heads: dict[ChainedTable, Head], last_part_seq: int) -> None:
        """Remember these heads and this part number; returns once they are on the disk."""
        told: dict[str, Any] = {name: [at.row_id, at.hash.hex()] for name, at in heads.items()}
        line = json.dumps(told | {"part_seq": last_part_seq})
        os.pwrite(self._fd, line.ljust(_SIZE - 1).encode() + b"\n", 0)
        os.fsync(self._fd)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def check_mark(database_path: Path, connection: Connection) -> str:
    """Compare the mark with the database: empty, or one line saying what is gone."""
    path = mark_path(database_path)
    heads = {table: head(connection, table) for table in CHAINED}
    if not path.exists():
        if any(at.row_id for at in heads.values()):
            return (
                f"{path}: the high-water mark is missing; whether the newest rows are complete cannot be told"
            )
        return ""
    try:
        loaded = _load(path)
        marks = {table: Head(loaded[table][0], bytes.fromhex(loaded[table][1])) for table in CHAINED}
    except (ValueError, TypeError, LookupError):
        return (
            f"{path}: the high-water mark is unreadable; whether the newest rows are complete cannot be told"
        )
    for table in CHAINED:
        mark = marks[table]
        if mark.row_id > heads[table].row_id:
            return (
                f"{database_path}: {table} rows {heads[table].row_id + 1} to {mark.row_id} were acknowledged "
                "and are gone (a lost -wal file, or an older copy in place of the database)"
            )
        if mark.row_id > floor(connection, table).row_id:
            stored = connection.execute(
                text(f"SELECT hash FROM {table} WHERE id = :id"), {"id": mark.row_id}
            ).scalar()
            if stored != mark.hash:
                return f"{database_path}: {table} row {mark.row_id} is not the one that was acknowledged"
    return ""


def read_last_part_seq(database_path: Path) -> int:
    """The highest part number that the mark knows of; 0 when it cannot be read."""
    try:
        loaded = _load(mark_path(database_path))
        return int(loaded.get("part_seq") or loaded["part"][0])  # an earlier version's: as many rows at least
    except (OSError, ValueError, TypeError, LookupError):
        return 0


def _load(path: Path) -> dict[str, Any]:
    loaded = json.loads(path.read_text(encoding="ascii"))
    if not isinstance(loaded, dict):
        raise TypeError("not an object")
    return loaded
