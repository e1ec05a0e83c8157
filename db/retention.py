"""Let go of what is older than it has to be kept.

Pictures go by class, age and bytes: passed parts' (JPEG) first, everything else later. Their rows stay.
Pictures are chosen by their folders alone, so that a lost database never costs a picture.

Rows are small and are kept for years. Where they must go, the oldest go: the floor of their chain rises over
them in the same transaction, which is what the database's own triggers ask for; the rest verifies from there.
The hourly counts stay.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import text

from db.archive import Archive, is_pass
from db.chain import ChainedTable
from db.errors import record_errors
from db.writer import Writer

_FILES_AT_ONCE = 100
_TIME_COLUMNS: dict[ChainedTable, str] = {"part": "triggered_unix_ns", "event": "unix_ns"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRetention:
    """How long pictures and maps are kept.

    Attributes:
        pass_days: pictures of passed parts.
        other_days: all others, and every map; at least `pass_days`.
        max_bytes: of all files; beyond it the oldest hours go, passed parts' pictures of all hours first.
    """

    pass_days: float
    other_days: float
    max_bytes: int

    def __post_init__(self) -> None:
        if not 0 <= self.pass_days <= self.other_days:
            raise ValueError(
                f"pass_days must be 0 to other_days (got {self.pass_days:g} and {self.other_days:g} days)"
            )
        if self.max_bytes < 0:
            raise ValueError(f"max_bytes must not be negative (got {self.max_bytes})")


class _File(NamedTuple):
    path: str
    size_bytes: int
    passed: bool


def expire_images(
    archive: Archive,
    retention: ImageRetention,
    now_unix_ns: int,
    pause: Callable[[], None] = lambda: None,
) -> int:
    """Remove the pictures and maps that need no longer be kept; how many went. Others may be written
    meanwhile.

    Args:
        archive: its folders; their rows are not asked.
        retention: what is kept.
        now_unix_ns: the moment from which ages are counted.
        pause: called about every millisecond of work, to leave the processor to others; what it raises ends
            the work.

    Raises:
        RecordReadOnly, RecordError: not all of them could be removed.
    """
    now = datetime.fromtimestamp(now_unix_ns // 1_000_000_000, UTC)
    removed = excess = 0
    with record_errors(archive.root):
        hours = archive.hours()
        for hour in hours:
            age = now - _end_of(archive.root, hour)
            pass_is_old = age > timedelta(days=retention.pass_days)
            other_is_old = age > timedelta(days=retention.other_days)
            files = _files(hour, pause)
            old = [file for file in files if (pass_is_old if file.passed else other_is_old)]
            removed += _remove(old, pause)
            excess += sum(file.size_bytes for file in files) - sum(file.size_bytes for file in old)
            if other_is_old:
                with suppress(OSError):  # something else lies there
                    hour.rmdir()
        excess -= retention.max_bytes
        for passed_only in (True, False):
            for hour in hours:
                if excess > 0:
                    files = [file for file in _files(hour, pause) if file.passed or not passed_only]
                    removed += _remove(files, pause)
                    excess -= sum(file.size_bytes for file in files)
    return removed


def expire_rows(writer: Writer, table: ChainedTable, before_unix_ns: int, most: int = 10_000) -> int:
    """Remove the oldest rows, up to the first that is not older than `before_unix_ns`; how many went.

    Args:
        writer: between commits, on its thread.
        table: part or event.
        before_unix_ns: the moment before which rows need not be kept.
        most: rows in this call's one transaction; call again until nothing goes.

    Raises:
        RecordError: nothing was removed.
    """
    connection = writer.connection
    newest = f"SELECT min(id) FROM {table} WHERE {_TIME_COLUMNS[table]} >= :before"
    with record_errors(writer.path), connection.begin():
        first_id, last_id = connection.execute(text(f"SELECT min(id), max(id) FROM {table}")).one()
        if first_id is None:
            return 0
        kept_id = connection.execute(text(newest), {"before": before_unix_ns}).scalar() or last_id + 1
        floor_id = min(kept_id - 1, first_id + most - 1)
        if floor_id < first_id:
            return 0
        raise_floor = (
            f"UPDATE chain SET floor_id = :id, floor_hash = (SELECT hash FROM {table} WHERE id = :id) "
            "WHERE table_name = :table"
        )
        connection.execute(text(raise_floor), {"id": floor_id, "table": table})
        gone = connection.execute(text(f"DELETE FROM {table} WHERE id <= :id"), {"id": floor_id})
        return gone.rowcount


def _end_of(root: Path, hour: Path) -> datetime:
    """When the last picture of an hour's folder was taken."""
    started = datetime.strptime(hour.relative_to(root).as_posix(), "%Y/%m/%d/%H").replace(tzinfo=UTC)
    return started + timedelta(hours=1)


def _files(hour: Path, pause: Callable[[], None]) -> list[_File]:
    """An hour's files; what is only being written, or just got its name, is left out."""
    found: list[_File] = []
    pause()
    with suppress(FileNotFoundError), os.scandir(hour) as entries:
        for number, entry in enumerate(entries, 1):
            with suppress(FileNotFoundError):
                if not entry.name.endswith(".tmp"):
                    size_bytes = entry.stat().st_size
                    found.append(_File(entry.path, size_bytes, is_pass(entry.name)))
            if number % _FILES_AT_ONCE == 0:
                pause()
    return found


def _remove(files: list[_File], pause: Callable[[], None]) -> int:
    """Remove files; how many."""
    for number, file in enumerate(files, 1):
        Path(file.path).unlink(missing_ok=True)
        if number % _FILES_AT_ONCE == 0:
            pause()
    return len(files)
