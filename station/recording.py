"""The recording stage: sole writer of database and files. Verdicts and outputs never wait for it.

Rows come first: a full disk or a slow one sheds images, flagged in their rows, never rows. A commit that
fails is repeated until it succeeds; parts count as recorded only then.
"""

import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from db.archive import Archive
from db.backup import back_up
from db.chain import ChainedTable
from db.errors import DiskFull, RecordDamaged, RecordError, disk_full
from db.queries import read_counts, read_known_files, shift_counts, yield_trend
from db.retention import expire_rows
from db.session import Database, open_database
from db.writer import EventRow, PartRow, Writer
from station.ballast import Ballast
from station.sections import LineSection, RecordSection
from station.shifts import ShiftConfig, shift_at
from station.stage import LONGEST_WAIT_S, Stage
from station.types import Inspection, Verdict

log = logging.getLogger(__name__)

_MAX_BATCH = 200
_RETRY_S = 1.0
_EXPIRED_AT_ONCE = 1000  # rows; parts wait for the disk meanwhile
_TREND_S, _TREND_BUCKET_S = 7200, 60


class _Pixels(NamedTuple):
    """What a part wants kept: image, map, and whether the image must stay exactly as it was."""

    image_rgb: NDArray[np.uint8]
    anomaly_map: NDArray[np.float32] | None
    lossless: bool


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A part on its way to the disk."""

    row: PartRow
    pixels: _Pixels | None


_RunCall = Callable[[Writer], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Chore:
    """Something the writer does between two commits, and who waits for it."""

    call: Callable[[Writer], Any]
    answer: "Future[Any]"


def part_uid(run_id: str, part_seq: int) -> str:
    """The name of a part for ever."""
    return f"{run_id}-{part_seq:09d}"


class RecordingStage(Stage):
    """One thread between verdicts and disk."""

    patience_s = 120.0  # a disk that stalls is no reason to start the line again

    def __init__(
        self,
        *,
        database_path: Path,
        images_dir: Path,
        run_id: str,
        line: LineSection,
        shifts: Sequence[ShiftConfig],
        config: RecordSection,
        on_recorded: Callable[[PartRow], None],
        on_record: Callable[[str, str], None],
        on_loss: Callable[[str], None],
        on_failure: Callable[[Stage], None],
    ) -> None:
        """Set up; `start()` opens the record in this stage's thread.

        Args:
            database_path: SQLite file.
            images_dir: archive's root.
            run_id: of this run; part of every uid.
            line: recipe, lot and user for the rows.
            shifts: the plant's.
            config: group commit and image policy.
            on_recorded: told of every row once it is on the disk.
            on_record: told the record's state (ok, warn or fault) and a text when they change.
            on_loss: told, at opening, of rows that were acknowledged once and are gone.
            on_failure: told when this stage dies.
        """
        super().__init__("recording", on_failure)
        self._on_loss = on_loss
        self._database_path = database_path
        self._archive = Archive(images_dir)
        self._ballast = Ballast(database_path.with_name("ballast"), round(config.ballast_mb * 1e6))
        self._restore_ballast_s = 0.0
        self._run_id = run_id
        self._line = line
        self._shifts = shifts
        self._config = config
        self._on_recorded = on_recorded
        self._on_record = on_record
        self._queue: queue.SimpleQueue[_Part | EventRow | _RunCall | _Chore | None] = queue.SimpleQueue()
        self._pending_images = 0
        self._pending_lock = threading.Lock()
        self._passed = 0
        self._said = ("", "")
        self._give_up_s = float("inf")
        self.opened = threading.Event()
        """Set once the record is open, or cannot be opened."""
        self.open_error: RecordError | None = None
        self.last_part_seq = 0
        """The highest part number in the record when it was opened."""
        self.shift_counts: dict[str, int] = {}
        """Parts of the current shift by verdict when the record was opened."""
        self.trend: list[tuple[int, int, int]] = []
        """(unix seconds, parts, passed) a minute, the last two hours when the record was opened."""
        self.images_shed = 0
        self.unrecorded = 0
        """Rows that could not be written before the stop's deadline."""

    # --- called by other threads

    def put(self, inspection: Inspection) -> None:
        """Take a decided part. Never blocks; its pixels are let go when too many wait already."""
        pixels = self._wanted_pixels(inspection)
        shed = False
        if pixels is not None:
            with self._pending_lock:
                shed = self._pending_images >= self._config.max_pending_images
                self._pending_images += not shed
        if shed:
            self.images_shed += 1
            pixels = None
        self._queue.put(_Part(self._row(inspection, shed), pixels))

    def _wanted_pixels(self, inspection: Inspection) -> "_Pixels | None":
        if inspection.frame is None:
            return None
        passed = inspection.verdict is Verdict.PASS
        if passed:
            self._passed += 1
            every = self._config.pass_image_every
            if not every or self._passed % every:
                return None
        anomaly_map = inspection.result.anomaly_map if inspection.result else None
        return _Pixels(inspection.frame.image_rgb, anomaly_map, lossless=not passed)

    @property
    def waiting(self) -> int:
        """What waits for the disk: parts, events and the like."""
        return self._queue.qsize()

    @property
    def waiting_images(self) -> int:
        """Pictures among them."""
        return self._pending_images

    def event(self, event: EventRow) -> None:
        """Take an event. Never blocks."""
        self._queue.put(event)

    def back_up(self, target: Path) -> "Future[None]":
        """Copy the record to `target`, which lies on its disk. Never blocks; parts are recorded meanwhile."""
        return self._between_commits(
            lambda writer: back_up(writer, target, lambda: self._amid_backup(writer))
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
        self._queue.put(
            lambda writer: writer.start_run(
                self._run_id,
                station=station,
                version=version,
                config_sha256=config_sha256,
                model_id=model_id,
                started_unix_ns=now_ns,
            )
        )

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
            database, writer = self._open()
        except RecordError as error:
            self.open_error = error
            return
        finally:
            self.opened.set()
        try:
            self._say("ok", "recording")
            if database.loss:
                self._on_loss(database.loss)
            while self._write_batch(writer):
                pass
        finally:
            try:
                writer.close()
            except RecordError as error:
                log.error("the record did not close cleanly: %s", error)
            database.close()

    def _open(self) -> tuple[Database, Writer]:
        database = open_database(self._database_path)
        try:
            writer = Writer(database)
        except RecordError:
            database.close()
            raise
        try:
            now_ns = time.time_ns()
            with database.connect() as connection:
                known = set() if database.loss else read_known_files(connection)  # lost rows had pictures
                removed = self._archive.sweep(known)
                self.shift_counts = read_counts(connection, shift_counts(shift_at(self._shifts, now_ns).key))
                trend = yield_trend(now_ns - _TREND_S * 10**9, now_ns, _TREND_BUCKET_S)
                self.trend = [tuple(row) for row in connection.execute(trend)]  # type: ignore[misc]
            if removed:
                log.info("removed %d picture files that no row names", removed)
            self.last_part_seq = writer.last_part_seq()
        except RecordError:
            writer.close()
            database.close()
            raise
        return database, writer

    def _write_batch(self, writer: Writer) -> bool:
        """Gather what comes within the linger time and commit it; False after the last batch."""
        parts: list[_Part] = []
        events: list[EventRow] = []
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
            linger_until_s = linger_until_s or time.monotonic() + self._config.linger_ms / 1e3
            match item:
                case None:
                    more = False
                case _Part():
                    parts.append(item)
                case EventRow():
                    events.append(item)
                case _:
                    call = item  # a run starts before its parts and ends behind them: its own batch
        rows = [self._store(part) for part in parts]
        if rows or events:
            if self._until_done(lambda: writer.commit(rows, events)):
                for row in rows:
                    self._on_recorded(row)
            else:
                self.unrecorded += len(rows)
        if isinstance(call, _Chore):
            self._do(call, writer)
        elif call is not None:
            run_call = call
            self._until_done(lambda: run_call(writer))
        return more

    @staticmethod
    def _do(chore: _Chore, writer: Writer) -> None:
        try:
            chore.answer.set_result(chore.call(writer))
        except Exception as error:  # noqa: BLE001 - whoever asked gets it; parts are recorded all the same
            chore.answer.set_exception(error)

    def _amid_backup(self, writer: Writer) -> None:
        """Commit what has come in meanwhile; no backup is worth a row, or a late stop."""
        self.beat()
        if not self._queue.empty() and not self._write_batch(writer):
            self._queue.put(None)  # for who called the backup
        if self._give_up_s < float("inf"):
            raise RecordError(f"{self._database_path}: no backup, the station stops")
        if not self._may_keep_pictures():
            raise disk_full(self._database_path)

    def _until_done(self, write: Callable[[], None]) -> bool:
        """Repeat a write until it succeeds, or until the stop's time is over: then False."""
        while True:
            self.beat()
            try:
                write()
            except RecordDamaged:
                raise  # repeating it would never help: the stage fails, the line stops and says why
            except RecordError as error:
                if isinstance(error, DiskFull) and self._ballast.give_up():
                    log.error("pictures are shed from now on: %s", error)
                    continue
                log.error("not recorded yet: %s", error)
                self._say("fault", str(error))
                if time.monotonic() + _RETRY_S > self._give_up_s:
                    return False
                time.sleep(_RETRY_S)
            else:
                if self._may_keep_pictures():
                    self._say("ok", "recording")
                else:
                    self._say("fault", "disk full: pictures are shed, rows are kept; free some space")
                return True

    def _store(self, part: "_Part") -> PartRow:
        """Put a part's pixels on the disk, before its row; the row then names the files."""
        if part.pixels is None:
            return part.row
        image_rgb, anomaly_map, lossless = part.pixels
        try:
            if not self._may_keep_pictures():
                self.images_shed += 1
                return replace(part.row, image_shed=True)
            files = self._archive.store(
                part.row.uid, part.row.triggered_unix_ns, image_rgb, anomaly_map, lossless
            )
        except RecordError as error:
            log.error("picture of part %d shed: %s", part.row.part_seq, error)
            if isinstance(error, DiskFull):
                self._ballast.give_up()  # what is left is for rows
            self.images_shed += 1
            return replace(part.row, image_shed=True)
        finally:
            with self._pending_lock:
                self._pending_images -= 1
        return replace(part.row, image_path=files.image_path, map_path=files.map_path)

    def _may_keep_pictures(self) -> bool:
        """Whether there is space beyond what rows need; looked at again once a second where there was
        none."""
        if not self._ballast.intact and time.monotonic() >= self._restore_ballast_s:
            self._restore_ballast_s = time.monotonic() + _RETRY_S
            self._ballast.restore()
        return self._ballast.intact

    def _row(self, inspection: Inspection, shed: bool) -> PartRow:
        trigger, limits, result = inspection.trigger, inspection.limits, inspection.result
        return PartRow(
            uid=part_uid(self._run_id, trigger.part_seq),
            run_id=self._run_id,
            part_seq=trigger.part_seq,
            camera_id=trigger.camera_id,
            frame_id=inspection.frame.frame_id if inspection.frame else None,
            triggered_unix_ns=trigger.triggered_unix_ns,
            shift_key=shift_at(self._shifts, trigger.triggered_unix_ns).key,
            lot=self._line.lot,
            recipe=self._line.recipe,
            user=self._line.user,
            verdict=inspection.verdict,
            reason=inspection.reason,
            score=result.score if result and math.isfinite(result.score) else None,
            limit_recheck=limits.recheck if limits else 0.0,
            limit_reject=limits.reject if limits else 0.0,
            model_id=inspection.model_id,
            latency_ms=inspection.latency_ms,
            timings_ms=inspection.timings_ms,
            image_shed=shed,
            regions=inspection.regions,
            plc_part_id=trigger.plc_part_id,
        )

    def _say(self, state: str, text: str) -> None:
        if (state, text) != self._said:
            self._said = (state, text)
            self._on_record(state, text)
