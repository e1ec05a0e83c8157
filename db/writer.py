"""The one writer of the record.

`commit` returns once the rows are on the disk: that return is the acknowledgement. A call that failed, or
whose outcome is unknown, may be repeated with the same rows: those already there are recognised by their uid.
Called from one thread; a lock file keeps a second program out.
"""

import fcntl
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from time import time_ns
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from db.chain import CHAINED, ChainedTable, Head, canonical_json, hashed_columns, head, link, link_row
from db.errors import RecordContradicted, RecordDamaged, RecordError, RecordLocked, record_errors
from db.mark import Mark, read_last_part_seq
from db.models import Base, EventKind, Hourly, Part, Run
from db.session import Database, sqlite_connection

_UIDS_PER_QUERY = 500
_NS_PER_HOUR = 3_600_000_000_000
_JUDGED_BY = ("score", "limit_recheck", "limit_reject")


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewRow:
    """What one of several cameras saw of a part; the fields mean what they mean in `PartRow`."""

    camera_id: str
    frame_id: int | None
    verdict: str
    reason: str
    score: float | None
    limit_recheck: float
    limit_reject: float
    model_id: str
    image_path: str | None = None
    map_path: str | None = None

    def values(self) -> dict[str, Any]:
        """The view as it is stored."""
        return {item.name: getattr(self, item.name) for item in fields(self)} | _judgement(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartRow:
    """One decided part.

    Attributes:
        uid: unique for ever, made at the trigger.
        frame_id: the device's counter; None when no frame came.
        shift_key: as `station.shifts.ShiftWindow.key` at the trigger.
        verdict: PASS, RECHECK, REJECT or NOT_INSPECTED.
        score: raw score; None when there is no finite one.
        latency_ms: trigger to verdict.
        timings_ms: stage -> milliseconds.
        image_path: below the archive's root; None when none was kept.
        map_path: below the archive's root; None when none was kept.
        image_shed: a picture should have been kept, and was not (disk full).
        regions: boxes (x, y, width, height) above the recheck limit, as fractions of the image.
        plc_part_id: the PLC's id of the part, 0 to 2**32 - 1; None where it gave none.
        views: what each of several cameras saw; empty where a part has one camera.
    """

    uid: str
    run_id: str
    part_seq: int
    camera_id: str
    frame_id: int | None
    triggered_unix_ns: int
    shift_key: str
    lot: str
    recipe: str
    user: str
    verdict: str
    reason: str
    score: float | None
    limit_recheck: float
    limit_reject: float
    model_id: str
    latency_ms: float
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    image_path: str | None = None
    map_path: str | None = None
    image_shed: bool = False
    regions: Sequence[Sequence[float]] = ()
    plc_part_id: int | None = None
    views: Sequence[ViewRow] = ()

    def __post_init__(self) -> None:
        numbers = [("latency_ms", self.latency_ms), *self.timings_ms.items()]
        numbers += [(name, getattr(judged, name)) for judged in (self, *self.views) for name in _JUDGED_BY]
        for name, value in numbers:
            if value is not None and not math.isfinite(value):
                raise ValueError(f"part {self.uid}: {name} must be finite (got {value})")

    @property
    def files(self) -> set[str]:
        """Every picture and map that the row names, its own and its views'."""
        named = (getattr(seen, name) for seen in (self, *self.views) for name in ("image_path", "map_path"))
        return {path for path in named if path}

    def values(self) -> dict[str, Any]:
        """The row as it is stored: plain types, equal to what the database gives back."""
        row = {item.name: getattr(self, item.name) for item in fields(self)}
        row["timings_ms"] = {str(stage): _real(value) for stage, value in self.timings_ms.items()}
        row["regions"] = [[_real(value) for value in box] for box in self.regions]
        row["latency_ms"] = _real(self.latency_ms)
        row["views"] = [view.values() for view in self.views]
        return row | _judgement(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One event; `db.models` lists the kinds and what their `detail` holds.

    Attributes:
        severity: info, low, medium or high.
        title: one line, as the operator reads it.
        detail: JSON values only, no NaN.
        uid: makes a repeated commit recognisable.
    """

    unix_ns: int
    kind: EventKind
    severity: str
    title: str
    detail: Mapping[str, Any] = field(default_factory=dict)
    user: str = ""
    run_id: str | None = None
    uid: str = field(default_factory=lambda: uuid4().hex)

    def values(self) -> dict[str, Any]:
        """The row as it is stored."""
        row = {item.name: getattr(self, item.name) for item in fields(self)}
        return row | {"kind": str(EventKind(self.kind)), "detail": dict(self.detail)}


class Writer:
    """Sole writer and checkpointer of an open record."""

    def __init__(self, database: Database) -> None:
        """Take the record for writing. A loss found at opening is recorded as the first event.

        Raises:
            RecordLocked: another program, or another `Writer`, holds it.
            RecordError: see `db.errors`.
        """
        if database.engine is None:
            raise RecordError(f"{database.path}: opened for reading only; use open_database to write")
        self.path = database.path
        with record_errors(self.path):
            self._lock_fd = lock_for_writing(self.path)
            try:
                self._connection = database.engine.connect()
                with self._connection.begin():
                    recorded = self._connection.execute(select(func.max(Part.part_seq))).scalar() or 0
                self._last_part_seq = max(recorded, read_last_part_seq(self.path))
                self._opened = self.path.stat()
                self._mark = Mark(self.path)
            except BaseException:
                os.close(self._lock_fd)
                raise
        self._closed = False
        if database.loss:
            try:
                self.commit((), [_loss_event(database.loss)])
            except BaseException:
                self.close()
                raise

    def commit(self, parts: Sequence[PartRow], events: Sequence[EventRow] = ()) -> None:
        """Write parts and events in one transaction: all of them, or none. Returns when they are on the disk.

        Raises:
            DiskFull: nothing was written; free some space and repeat the call.
            RecordContradicted: a uid is already recorded with other content.
            RecordDamaged: the database can be used no more; nothing was written.
            RecordError: nothing was written.
        """
        with record_errors(self.path):
            with self._connection.begin():
                part_head, new_parts = self._append("part", [row.values() for row in parts])
                event_head, _ = self._append("event", [row.values() for row in events])
                self._count_hourly(new_parts)
            self._refuse_replaced()
            self._last_part_seq = max(self._last_part_seq, *(row.part_seq for row in parts), 0)
            self._mark.write({"part": part_head, "event": event_head}, self._last_part_seq)

    def append_stored(self, table: ChainedTable, rows: Sequence[Mapping[str, Any]]) -> int:
        """Write rows as another record stores them, in one transaction; those whose uid is here are left out.
        Those that continue this record's chain keep their ids and hashes. How many were new.

        Args:
            table: part or event.
            rows: every column, as SQLite gives it.
        """
        names = hashed_columns(table)
        new: dict[str, tuple[Any, ...]] = {}
        with record_errors(self.path):
            with self._connection.begin():
                at = head(self._connection, table)
                known = self._recorded(table, [row["uid"] for row in rows])
                for row in rows:
                    if row["uid"] not in known:
                        values = [at.row_id + 1, *(row[name] for name in names[1:])]
                        at = Head(values[0], link(table, at.hash, values))
                        new[row["uid"]] = (*values, at.hash)
                if new:
                    columns = ", ".join(f'"{name}"' for name in (*names, "hash"))
                    marks = ", ".join("?" * (len(names) + 1))
                    statement = f"INSERT INTO {table} ({columns}) VALUES ({marks})"
                    self._connection.exec_driver_sql(statement, list(new.values()))
                if table == "part":
                    added = [row for row in rows if row["uid"] in new]
                    self._count_hourly(added)
                    self._last_part_seq = max(self._last_part_seq, *(row["part_seq"] for row in added), 0)
                heads = {name: head(self._connection, name) for name in CHAINED}
            self._mark.write(heads, self._last_part_seq)
        return len(new)

    def start_run(
        self,
        run_id: str,
        *,
        station: str,
        version: str,
        config_sha256: str,
        model_id: str,
        started_unix_ns: int,
    ) -> None:
        """Record the start of a run; parts name it by `run_id`. Repeating the call is harmless."""
        row = {"run_id": run_id, "station": station, "started_unix_ns": started_unix_ns, "version": version}
        row |= {"config_sha256": config_sha256, "model_id": model_id}
        with record_errors(self.path), self._connection.begin():
            self._connection.execute(upsert(Run).on_conflict_do_nothing(), row)

    def stop_run(self, run_id: str, *, stopped_unix_ns: int, stop_reason: str) -> None:
        """Record the end of a run."""
        with record_errors(self.path), self._connection.begin():
            statement = update(Run).where(Run.run_id == run_id)
            self._connection.execute(
                statement.values(stopped_unix_ns=stopped_unix_ns, stop_reason=stop_reason)
            )

    def last_part_seq(self) -> int:
        """The highest part number ever recorded, also in rows that are gone; 0 when there is none."""
        return self._last_part_seq

    @property
    def connection(self) -> Connection:
        """The writing connection, for backup and retention: on the writer's thread, between commits."""
        return self._connection

    def close(self) -> None:
        """Checkpoint and let go of the record. May be called twice."""
        if self._closed:
            return
        self._closed = True
        with record_errors(self.path):
            try:
                # Outside a transaction; a reader may hold it back, then the next start checkpoints.
                sqlite_connection(self._connection).execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                self._connection.close()
                self._mark.close()
                os.close(self._lock_fd)

    def _refuse_replaced(self) -> None:
        """SQLite goes on writing to a file that was moved or removed: whatever it holds, it is not kept."""
        try:
            in_place = os.path.samestat(self._opened, self.path.stat())
        except FileNotFoundError:
            in_place = False
        if not in_place:
            raise RecordDamaged(f"{self.path}: moved, removed or replaced while the station wrote to it")

    def _append(self, table: ChainedTable, rows: list[dict[str, Any]]) -> tuple[Head, list[dict[str, Any]]]:
        """Chain and insert the rows that are not there yet; the new head, and the rows that were new."""
        at = head(self._connection, table)
        new = self._unrecorded(table, rows)
        for row in new:
            row["id"] = at.row_id + 1
            row["hash"] = link_row(table, at.hash, row)
            at = Head(row["id"], row["hash"])
        if new:
            self._connection.execute(insert(Base.metadata.tables[table]), new)
        return at, new

    def _recorded(self, table: ChainedTable, uids: list[str]) -> dict[str, Mapping[str, Any]]:
        """Those of some rows that are there, by uid, without ids and hashes."""
        columns = Base.metadata.tables[table].columns
        wanted = [column for column in columns if column.name not in ("id", "hash")]
        known: dict[str, Mapping[str, Any]] = {}
        for start in range(0, len(uids), _UIDS_PER_QUERY):
            asked = columns["uid"].in_(uids[start : start + _UIDS_PER_QUERY])
            known |= {
                row["uid"]: row for row in self._connection.execute(select(*wanted).where(asked)).mappings()
            }
        return known

    def _unrecorded(self, table: ChainedTable, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        known = self._recorded(table, [row["uid"] for row in rows])
        new = []
        for row in rows:
            earlier = known.setdefault(row["uid"], row)
            if earlier is row:
                new.append(row)
            elif canonical_json(dict(earlier)) != canonical_json(row):
                raise RecordContradicted(
                    f"{self.path}: {table} {row['uid']} is already recorded with other content; "
                    "a uid must be made once, at the trigger"
                )
        return new

    def _count_hourly(self, parts: Iterable[Mapping[str, Any]]) -> None:
        counts = Counter(
            (
                part["triggered_unix_ns"] // _NS_PER_HOUR * 3600,
                part["shift_key"],
                part["verdict"],
                part["reason"],
            )
            for part in parts
        )
        if not counts:
            return
        keys = ("hour_unix_s", "shift_key", "verdict", "reason")
        statement = upsert(Hourly)
        statement = statement.on_conflict_do_update(
            index_elements=list(keys), set_={"parts": Hourly.parts + statement.excluded.parts}
        )
        rows = [dict(zip(keys, key, strict=True), parts=parts) for key, parts in counts.items()]
        self._connection.execute(statement, rows)


def _judgement(row: PartRow | ViewRow) -> dict[str, Any]:
    """Verdict, reason and the numbers behind them as plain types."""
    numbers = {name: getattr(row, name) for name in _JUDGED_BY}
    numbers = {name: None if value is None else _real(value) for name, value in numbers.items()}
    return {"verdict": str(row.verdict), "reason": str(row.reason), **numbers}


def _real(value: float) -> float:
    """A float as SQLite gives it back: it has no negative zero."""
    return float(value) + 0.0


def lock_path(database_path: Path) -> Path:
    """Where the lock of a database lies."""
    return database_path.with_name(database_path.name + ".lock")


def lock_for_writing(database_path: Path) -> int:
    """Keep every other program from writing until the descriptor returned is closed.

    Raises:
        RecordLocked: another one does.
    """
    lock_fd = os.open(lock_path(database_path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock_fd)
        raise RecordLocked(
            f"{database_path}: another station is writing here; stop it, or give this one its own data_dir"
        ) from error
    return lock_fd


def _loss_event(loss: str) -> EventRow:
    return EventRow(
        unix_ns=time_ns(),
        kind=EventKind.ALARM,
        severity="high",
        title="The record has lost rows",
        detail={
            "key": "record-loss",
            "cause": loss,
            "action": "Keep this disk; compare with the last backup",
        },
    )
