"""The recording stage: sole writer of database and files. Verdicts and outputs never wait for it.

A commit that fails is repeated until it succeeds; parts count as recorded only then. One that finds the
record damaged brings it back first (`station.lasting_record`).
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from db.archive import Archive, Swept
from db.backup import back_up
from db.chain import ChainedTable
from db.errors import DiskFull, RecordContradicted, RecordDamaged, RecordError, disk_full, record_errors
from db.queries import read_counts, read_known_files, shift_counts, yield_trend
from db.retention import expire_rows
from db.session import refuse_damaged, sqlite_connection
from db.writer import EventRow, PartRow, Writer
from station.ballast import BALLAST
from station.keeping import SLOW, KeptPart, PartKeeper
from station.lasting_record import LastingRecord
from station.sections import LineSection, RecordSection
from station.shifts import ShiftConfig, shift_at
from station.stage import LONGEST_WAIT_S, Stage
from station.types import Inspection

log = logging.getLogger(__name__)

_MAX_BATCH = 200
_RETRY_S = 1.0
_EXPIRED_AT_ONCE = 1000  # rows; parts wait for the disk meanwhile
_TREND_S, _TREND_BUCKET_S = 7200, 60

_RunCall = Callable[[Writer], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Chore:
    """Something the writer does between two commits, and who waits for it."""

    call: Callable[[Writer], Any]
    answer: "Future[Any]"


class RecordingStage(Stage):
    """One thread between verdicts and disk."""

    patience_s = 120.0  # a disk that stalls is no reason to start the line again

    def __init__(
        self,
        *,
        database_path: Path,
        images_dir: Path,
        backup_folder: Path,
        run_id: str,
        line: LineSection,
        shifts: Sequence[ShiftConfig],
        config: RecordSection,
        on_recorded: Callable[[PartRow], None],
        on_record: Callable[[str, str], None],
        on_loss: Callable[[str], None],
        on_recovered: Callable[[str], None],
        on_failure: Callable[[Stage], None],
    ) -> None:
        """Set up; `start()` opens the record in this stage's thread.

        Args:
            database_path: SQLite file.
            images_dir: archive's root.
            backup_folder: where a damaged record's backups are.
            run_id: of this run; part of every uid.
            line: recipe, lot and user for the rows.
            shifts: the plant's.
            config: group commit and image policy.
            on_recorded: told of every row once it is on the disk.
            on_record: told the record's state (ok, warn or fault) and a text when they change.
            on_loss: told, at opening, of rows that were acknowledged once and are gone.
            on_recovered: told that the record was damaged, and what is in its place.
            on_failure: told when this stage dies.
        """
        super().__init__("recording", on_failure)
        self._database_path = database_path
        self._archive = Archive(images_dir)
        self._keeper = PartKeeper(
            archive=self._archive,
            ballast_path=database_path.with_name(BALLAST),
            run_id=run_id,
            line=line,
            shifts=shifts,
            config=config,
        )
        self._run_id = run_id
        self._shifts = shifts
        self._linger_s = config.linger_ms / 1e3
        self._on_recorded = on_recorded
        self._on_record = on_record
        self._queue: queue.SimpleQueue[KeptPart | EventRow | _RunCall | _Chore | None] = queue.SimpleQueue()
        self._record = LastingRecord(
            database_path,
            self._archive,
            backup_folder,
            pending=self._pending_pictures,
            between_steps=self._amid_recovery,
            on_loss=on_loss,
            on_recovered=on_recovered,
        )
        self._copying = False
        self._rows: list[PartRow] = []  # gathered, and not committed yet
        self._events: list[EventRow] = []
        self._said = ("", "")
        self._give_up_s = float("inf")
        self.opened = threading.Event()
        """Set once the record is open, or cannot be opened."""
        self.open_error: RecordError | None = None
        self.last_part_seq = 0
        """The highest part number in the record when it was opened."""
        self.swept = Swept()
        """Where pictures and rows did not fit when the record was opened."""
        self.shift_counts: dict[str, int] = {}
        """Parts of the current shift by verdict when the record was opened."""
        self.trend: list[tuple[int, int, int]] = []
        """(unix seconds, parts, passed) a minute, the last two hours when the record was opened."""
        self.unrecorded = 0
        """Rows that could not be written before the stop's deadline."""

    # --- called by other threads

    def put(self, inspection: Inspection) -> None:
        """Take a decided part. Never blocks; its pixels are let go when too many wait already."""
        part = self._keeper.take(inspection)
        self._queue.put(part)
        if part.row.image_shed and self._said[0] != "fault":
            self._say("fault", SLOW)  # this stage's own thread may be what waits

    @property
    def waiting(self) -> int:
        """What waits for the disk: parts, events and the like."""
        return self._queue.qsize()

    @property
    def waiting_images(self) -> int:
        """Pictures among them."""
        return self._keeper.pending_images

    @property
    def images_shed(self) -> int:
        """Pictures that should have been kept, and were not."""
        return self._keeper.images_shed

    def event(self, event: EventRow) -> None:
        """Take an event. Never blocks."""
        self._queue.put(event)

    def back_up(self, target: Path) -> "Future[None]":
        """Copy the record to `target`, which lies on its disk. Never blocks; parts are recorded meanwhile."""
        return self._between_commits(lambda writer: self._back_up(writer, target))

    def check(self) -> "Future[None]":
        """Look whether every page of the record is in order; if not, it is brought back. Never blocks."""
        return self._between_commits(
            lambda writer: refuse_damaged(writer.path, sqlite_connection(writer.connection))
        )

    def expire_rows(self, table: ChainedTable, before_unix_ns: int) -> "Future[int]":
        """Remove some of the oldest rows; how many went, 0 = none is older. Never blocks."""
        return self._between_commits(
            lambda writer: expire_rows(writer, table, before_unix_ns, _EXPIRED_AT_ONCE)
        )

    def _between_commits(self, call: Callable[[Writer], Any]) -> "Future[Any]":
        chore = _Chore(call, Future())
        self._queue.put(chore)
        return chore.answer

    def run_started(self, station: str, version: str, config_sha256: str, model_id: str) -> None:
        """Record the start of this run; call it before its first part."""
        now_ns = time.time_ns()
        start = partial(
            Writer.start_run,
            run_id=self._run_id,
            station=station,
            version=version,
            config_sha256=config_sha256,
            model_id=model_id,
            started_unix_ns=now_ns,
        )
        self._record.run = start
        self._queue.put(start)

    def run_stopped(self, reason: str) -> None:
        """Record the end of this run; call it after its last part."""
        now_ns = time.time_ns()
        self._queue.put(
            lambda writer: writer.stop_run(self._run_id, stopped_unix_ns=now_ns, stop_reason=reason)
        )

    def stop(self, timeout_s: float) -> None:
        """Write what waits, then close; what cannot be written within `timeout_s` is counted in
        `unrecorded`."""
        self._give_up_s = time.monotonic() + timeout_s
        self._queue.put(None)

    # --- this stage's thread

    def work(self) -> None:
        """Open, write until stopped, close."""
        try:
            try:
                self._resume()
            except RecordDamaged as error:
                self._record.put_down(error)
                self._resume()
        except RecordError as error:
            self.open_error = error
            self._record.close()
            return
        finally:
            self.opened.set()
        try:
            self._say("ok", "recording")
            while self._write_batch():
                pass
        finally:
            self._record.close()

    def _pending_pictures(self) -> set[str]:
        return set().union(*(row.files for row in self._rows))

    def _amid_recovery(self) -> None:
        self.beat()
        if time.monotonic() > self._give_up_s:
            raise RecordError(f"{self._database_path}: not brought back, the station stops")

    def _resume(self) -> None:
        """What the record says of the line so far; pictures that no row names go."""
        database, writer = self._record.open()
        now_ns = time.time_ns()
        with record_errors(self._database_path), database.connect() as connection:
            known = None if database.loss else read_known_files(connection)  # lost rows had pictures
            self.swept = self._archive.sweep(known)
            self.shift_counts = read_counts(connection, shift_counts(shift_at(self._shifts, now_ns).key))
            trend = yield_trend(now_ns - _TREND_S * 10**9, now_ns, _TREND_BUCKET_S)
            self.trend = [tuple(row) for row in connection.execute(trend)]  # type: ignore[misc]
        self.last_part_seq = writer.last_part_seq()

    def _write_batch(self) -> bool:
        """Gather what comes within the linger time and commit it; False after the last batch."""
        parts: list[KeptPart] = []
        call: _RunCall | _Chore | None = None
        more = True
        linger_until_s: float | None = None
        while len(parts) < _MAX_BATCH and more and call is None:
            self.beat()
            wait_s = LONGEST_WAIT_S if linger_until_s is None else linger_until_s - time.monotonic()
            try:
                item = self._queue.get(timeout=max(0.0, wait_s))
            except queue.Empty:
                break
            linger_until_s = linger_until_s or time.monotonic() + self._linger_s
            match item:
                case None:
                    more = False
                case KeptPart():
                    parts.append(item)
                case EventRow():
                    self._events.append(item)
                case _:
                    call = item  # a run starts before its parts and ends behind them: its own batch
        self._rows += [self._keeper.store(part) for part in parts]
        try:
            self._commit()
        except RecordDamaged:  # amid a backup: whoever called it brings the record back
            for item in (call, None)[call is None : 2 - more]:
                self._queue.put(item)
            raise
        if isinstance(call, _Chore):
            self._do(call)
        elif call is not None:
            self._until_done(call)
        return more

    def _commit(self) -> None:
        if not self._rows and not self._events:
            return
        if self._until_done(lambda writer: writer.commit(self._rows, self._events)):
            for row in self._rows:
                self._on_recorded(row)
        else:
            self.unrecorded += len(self._rows)
        self._rows, self._events = [], []

    def _do(self, chore: _Chore) -> None:
        try:
            chore.answer.set_result(chore.call(self._record.open().writer))
        except Exception as error:  # noqa: BLE001 - whoever asked gets it; parts are recorded all the same
            chore.answer.set_exception(error)
            if isinstance(error, RecordDamaged) and not isinstance(error, RecordContradicted):
                self._record.put_down(error)
                self._until_done(lambda writer: None)

    def _back_up(self, writer: Writer, target: Path) -> None:
        self._copying = True
        try:
            back_up(writer, target, self._amid_backup)
        finally:
            self._copying = False

    def _amid_backup(self) -> None:
        """Commit what has come in meanwhile; no backup is worth a row, or a late stop."""
        self.beat()
        if not self._queue.empty() and not self._write_batch():
            self._queue.put(None)  # for who called the backup
        if self._give_up_s < float("inf"):
            raise RecordError(f"{self._database_path}: no backup, the station stops")
        if not self._keeper.has_room():
            raise disk_full(self._database_path)

    def _until_done(self, write: Callable[[Writer], None]) -> bool:
        """Repeat a write until it succeeds, or until the stop's time is over: then False."""
        while True:
            self.beat()
            try:
                write(self._record.open().writer)
            except RecordContradicted:
                raise  # repeating it would never help: the stage fails, the line stops and says why
            except RecordDamaged as error:
                if self._copying or self._record.is_given_up:
                    raise
                self._say("fault", f"the record is brought back: {error}")
                self._record.put_down(error)
            except RecordError as error:
                if isinstance(error, DiskFull) and self._keeper.give_room_to_rows():
                    log.error("pictures are shed from now on: %s", error)
                    continue
                log.error("not recorded yet: %s", error)
                self._say("fault", str(error))
                if time.monotonic() + _RETRY_S > self._give_up_s:
                    return False
                time.sleep(_RETRY_S)
            else:
                trouble = self._keeper.trouble()
                self._say("fault" if trouble else "ok", trouble or "recording")
                return True

    def _say(self, state: str, text: str) -> None:
        if (state, text) != self._said:
            self._said = (state, text)
            self._on_record(state, text)
