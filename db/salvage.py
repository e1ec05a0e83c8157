"""Take over what a damaged record still gives.

The hash chain says which of its rows are as they were written: each whose link fits the row before. Behind a
backup's last row they continue its chain, and get the numbers and hashes that they had.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import text

from db.chain import ADDED_LATER, CHAINED, GENESIS, ChainedTable, Head, hashed_columns, head, link
from db.errors import RecordContradicted
from db.writer import Writer

_ROWS_AT_ONCE = 2000
_RUN_COLUMNS = ("station", "version", "config_sha256", "model_id", "started_unix_ns")


def take_over(
    damaged: Path, writer: Writer, between_steps: Callable[[], None] = lambda: None
) -> dict[ChainedTable, int]:
    """Append the sound rows of a damaged record that another one lacks; how many, by table.

    Args:
        damaged: nobody writes to it; nothing in it is changed.
        writer: of a backup of it, or of an empty record.
        between_steps: called every two thousand rows.

    Raises:
        RecordError: of the writer.
    """
    taken: dict[ChainedTable, int] = dict.fromkeys(CHAINED, 0)
    if not damaged.exists():
        return taken
    with closing(sqlite3.connect(f"{damaged.absolute().as_uri()}?mode=ro", uri=True)) as source:
        source.text_factory = lambda data: data.decode(errors="surrogateescape")
        for run in _readable(source, "SELECT * FROM run"):
            with suppress(RecordContradicted, ValueError, KeyError):  # what was never written
                writer.start_run(run["run_id"], **{name: run[name] for name in _RUN_COLUMNS})
        for table in CHAINED:
            rows = _sound_rows(source, table, _since(source, table, writer))
            while batch := list(islice(rows, _ROWS_AT_ONCE)):
                _add_runs(writer, batch)
                taken[table] += writer.append_stored(table, batch)
                between_steps()
    return taken


def _since(source: sqlite3.Connection, table: ChainedTable, writer: Writer) -> Head:
    """The row behind which the damaged record may hold what the writer's lacks."""
    with writer.connection.begin():
        last = head(writer.connection, table)
    if last.row_id:
        question = f"SELECT hash FROM {table} WHERE id = {last.row_id}"
        if [row["hash"] for row in _readable(source, question)] in ([], [last.hash]):
            return last
    floors = list(_readable(source, f"SELECT floor_id, floor_hash FROM chain WHERE table_name = '{table}'"))
    floor = Head(0, GENESIS)
    if floors:
        floor_id, floor_hash = floors[0]["floor_id"], floors[0]["floor_hash"]
        if isinstance(floor_id, int) and floor_id >= 0 and isinstance(floor_hash, bytes):
            floor = Head(floor_id, floor_hash)
    if not last.row_id:  # rows keep their numbers
        raise_floor = text("UPDATE chain SET floor_id = :id, floor_hash = :hash WHERE table_name = :table")
        with writer.connection.begin():
            values = {"id": floor.row_id, "hash": floor.hash, "table": table}
            writer.connection.execute(raise_floor, values)
    return floor


def _sound_rows(source: sqlite3.Connection, table: ChainedTable, since: Head) -> Iterator[dict[str, Any]]:
    """The rows behind `since` that fit the row before them, on both sides of what cannot be read."""
    names = hashed_columns(table)
    there = {row["name"] for row in _readable(source, f"PRAGMA table_info({table})")}
    older = {name: _literal(value) for name, value in ADDED_LATER[table].items() if name not in there}
    columns = ", ".join(f'{older.get(name, "")} "{name}"'.strip() for name in (*names, "hash"))
    at = since
    for _ in range(2):
        for row in _readable(source, f"SELECT {columns} FROM {table} WHERE id > {at.row_id} ORDER BY id"):
            values = [row[name] for name in names]
            if row["id"] == at.row_id + 1 and _fits(table, at, values, row["hash"]):
                yield row
            at = Head(row["id"], row["hash"])
        ids = [row["id"] for row in _readable(source, f"SELECT id FROM {table} ORDER BY id DESC", at.row_id)]
        if not ids:
            return
        at = Head(ids[-1] - 1, b"")  # what comes behind the hole


def _literal(default: object) -> str:
    """What an older record, which lacks a column, holds in it."""
    return "NULL" if default is None else f"'{default}'"


def _fits(table: ChainedTable, before: Head, values: list[Any], stored: object) -> bool:
    try:
        return link(table, before.hash, values) == stored
    except (TypeError, ValueError):  # what was never written
        return False


def _readable(
    source: sqlite3.Connection, question: str, down_to_id: int | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of an answer, up to where it cannot be read any more, or down to an id."""
    with suppress(sqlite3.DatabaseError):
        cursor = source.execute(question)
        names = [column[0] for column in cursor.description]
        for values in cursor:
            row = dict(zip(names, values, strict=True))
            if down_to_id is not None and row["id"] <= down_to_id:
                return
            yield row


def _add_runs(writer: Writer, rows: list[dict[str, Any]]) -> None:
    """The run of a row must be there; its own row may be what is gone."""
    for run_id, row in {row["run_id"]: row for row in rows if row["run_id"] is not None}.items():
        writer.start_run(
            run_id,
            station="",
            version="",
            config_sha256="",
            model_id=row.get("model_id", ""),
            started_unix_ns=row.get("triggered_unix_ns", 0),
        )
