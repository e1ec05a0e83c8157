"""Every part of a window as CSV, for spreadsheets."""

import csv
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

from db.chain import canonical_json
from db.models import Part
from db.queries import parts_between
from db.session import open_read_only
from station.report.build import NS_PER_S
from station.report.errors import ReportError
from station.shifts import ShiftWindow

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_ROWS_AT_ONCE = 5000


def write_csv(database_path: Path, window: ShiftWindow, csv_path: Path) -> None:
    """Write all columns of all parts, oldest first, after the local time. Appears whole or not at all.

    Text that a spreadsheet would take for a formula gets an apostrophe in front; numbers stay numbers. UTF-8
    with a byte-order mark, as spreadsheets expect it.

    Raises:
        RecordError: see `db.errors`.
        ReportError: the file cannot be written.
    """
    question = parts_between(window.started_unix_ns, window.ended_unix_ns)
    names = [column.name for column in Part.__table__.columns]
    temporary = csv_path.with_name(csv_path.name + ".tmp")
    try:
        with (
            closing(open_read_only(database_path)) as database,
            database.connect() as connection,
            temporary.open("w", encoding="utf-8-sig", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["triggered_local", *names])
            for row in connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(question):
                triggered_s = row.triggered_unix_ns // NS_PER_S
                local = datetime.fromtimestamp(triggered_s).isoformat(" ")
                writer.writerow([local, *map(_cell, row)])
        temporary.replace(csv_path)
    except OSError as error:
        raise ReportError(
            f"{csv_path}: cannot be written ({error.strerror}); choose another folder with --out"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _cell(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict | list):
        value = canonical_json(value)
    if isinstance(value, str) and value.startswith(_FORMULA_STARTS):
        return "'" + value
    return value
