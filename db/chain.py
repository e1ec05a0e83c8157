"""The hash chain over parts and events.

Each row carries sha256(hash of the row before + canonical row), where the canonical row is the JSON array of
every stored value but the hash itself, in column order, ids included. A changed bit, a removed or an inserted
row breaks it. A tail that was cut off whole does not: therefore the head is printed on the shift report and
kept in the high-water mark beside the database.

Columns that a migration added are left out of that array; where any of them holds more than what it gave to
the rows of its time, the array ends with an object of these, name -> value. So earlier rows verify as they
were written, and no value of a later column can be changed unseen either.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, select, text

from db.models import Base, Chain

ChainedTable = Literal["part", "event"]
CHAINED: tuple[ChainedTable, ...] = ("part", "event")
GENESIS = bytes(32)
ADDED_LATER: dict[ChainedTable, dict[str, Any]] = {"part": {"plc_part_id": None, "views": "[]"}, "event": {}}
"""Columns that migrations added, with the stored value that earlier rows have."""


@dataclass(frozen=True, slots=True)
class Head:
    """The last row of a chain; `row_id` 0 and `GENESIS` where there is none yet."""

    row_id: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class ChainCheck:
    """What `verify` found: `fault` is empty, or one line naming the first row that does not fit."""

    table: ChainedTable
    rows: int
    head: Head
    fault: str = ""


def canonical_json(value: Any) -> str:
    """The one way JSON is written here, so that equal values have equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def hashed_columns(table: ChainedTable) -> tuple[str, ...]:
    """The columns a link covers, in order: those of the first version, then those that were added."""
    added = ADDED_LATER[table]
    names = [column.name for column in Base.metadata.tables[table].columns if column.name != "hash"]
    return (*(name for name in names if name not in added), *added)


def link(table: ChainedTable, previous: bytes, values: list[Any]) -> bytes:
    """The hash of a row whose stored values are `values`, in the order of `hashed_columns`."""
    if added := ADDED_LATER[table]:
        later = zip(added.items(), values[-len(added) :], strict=True)
        told = {name: value for (name, default), value in later if value != default}
        values = values[: -len(added)] + [told] * bool(told)
    return hashlib.sha256(previous + canonical_json(values).encode("utf-8", "surrogatepass")).digest()


def link_row(table: ChainedTable, previous: bytes, row: Mapping[str, Any]) -> bytes:
    """`link` for a row about to be written: JSON columns as the text they become, booleans as 0 and 1."""
    return link(table, previous, [_stored(row[name]) for name in hashed_columns(table)])


def head(connection: Connection, table: ChainedTable) -> Head:
    """The last link that is in the database."""
    row = connection.execute(text(f"SELECT id, hash FROM {table} ORDER BY id DESC LIMIT 1")).first()
    return Head(row[0], row[1]) if row is not None else floor(connection, table)


def floor(connection: Connection, table: ChainedTable) -> Head:
    """Where the chain begins."""
    row = connection.execute(
        select(Chain.floor_id, Chain.floor_hash).where(Chain.table_name == table)
    ).one_or_none()
    return Head(row[0], row[1]) if row is not None else Head(0, GENESIS)


def head_before(connection: Connection, table: ChainedTable, row_id: int) -> Head:
    """The link before a row: where to verify from when only the rows since then matter."""
    statement = text(f"SELECT id, hash FROM {table} WHERE id = :id")
    row = connection.execute(statement, {"id": row_id - 1}).first()
    return Head(row[0], row[1]) if row is not None else floor(connection, table)


def verify(connection: Connection, table: ChainedTable, since: Head | None = None) -> ChainCheck:
    """Recompute the chain of a table, or the part of it after `since`. About a second for 100 000 rows."""
    at = since or floor(connection, table)
    columns = ", ".join(f'"{name}"' for name in hashed_columns(table))
    rows = 0
    statement = text(f"SELECT {columns}, hash FROM {table} WHERE id > :since ORDER BY id")
    result = connection.execute(statement, {"since": at.row_id})
    for *values, stored in result:
        row_id = values[0]
        if row_id != at.row_id + 1:
            fault = f"{table}: rows {at.row_id + 1} to {row_id - 1} are missing"
            return ChainCheck(table, rows, at, fault)
        try:
            expected = link(table, at.hash, values)
        except (TypeError, ValueError) as error:
            return ChainCheck(
                table, rows, at, f"{table}: row {row_id} holds what was never written ({error})"
            )
        if expected != stored:
            return ChainCheck(table, rows, at, f"{table}: row {row_id} was changed after it was written")
        at = Head(row_id, stored)
        rows += 1
    return ChainCheck(table, rows, at)


def read_faults(connection: Connection) -> list[str]:
    """What is wrong with either chain, a line each; empty when nothing was altered."""
    tables: tuple[ChainedTable, ...] = ("part", "event")
    return [fault for table in tables if (fault := verify(connection, table).fault)]


def _stored(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, dict | list):
        return canonical_json(value)
    return value
