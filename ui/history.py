"""The record, read in a thread of its own: the last rejects, the rejects of the shift, and their pictures."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PySide6.QtCore import QObject, Signal

from station.types import Verdict
from ui.overlay import LIMIT_U8, MapU8
from ui.picture import Picture, compose

if (
    TYPE_CHECKING
):  # the record's library takes a moment to load: not before the first picture is on the screen
    from sqlalchemy import Select

MAX_REVIEWED = 500
_NO_PIXELS = np.empty((0, 0, 3), np.uint8)
_NO_MAP = np.empty((0, 0), np.uint8)


@dataclass(frozen=True, slots=True)
class RecordedPart:
    """One part that did not pass, as the record has it."""

    uid: str
    part_seq: int
    camera_id: str
    verdict: Verdict
    reason: str
    score: float | None
    limit_recheck: float
    limit_reject: float
    latency_ms: float
    triggered_unix_ns: int
    lot: str
    recipe: str
    model_id: str
    image_path: str | None
    map_path: str | None


class History(QObject):
    """Answers come as signals. Opens the record anew for each question: it may not exist yet.

    Signals:
        last_found: (list[RecordedPart]) newest first.
        shift_found: (list[RecordedPart]) newest first, at most `MAX_REVIEWED`.
        picture_found: (uid, Picture)
        failed: (what, why) e.g. no record yet, or a picture that is no longer kept.
    """

    last_found = Signal(list)
    shift_found = Signal(list)
    picture_found = Signal(str, object)
    failed = Signal(str, str)

    def __init__(self, database_path: Path, images_dir: Path, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.database_path = database_path
        self._images_dir = images_dir
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._answer_all, name="history")

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Drop what is still asked and join the thread."""
        self._closing.set()
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def ask_last(self, limit: int) -> None:
        """The newest parts that did not pass."""
        self._queue.put(lambda: self.last_found.emit(self._read(limit, 0)))

    def ask_shift(self, started_unix_ns: int) -> None:
        """The parts that did not pass since the shift began."""
        self._queue.put(lambda: self.shift_found.emit(self._read(MAX_REVIEWED, started_unix_ns)))

    def ask_picture(self, part: RecordedPart, box_px: tuple[int, int]) -> None:
        """A part's picture and heatmap; `fitted` fills a box of `box_px`."""
        self._queue.put(lambda: self.picture_found.emit(part.uid, self._load(part, box_px)))

    def ask_picture_of(self, uid: str, box_px: tuple[int, int]) -> None:
        """The same for a part of which only the uid is known."""
        self._queue.put(lambda: self._find(uid, box_px))

    def _answer_all(self) -> None:
        while (question := self._queue.get()) is not None and not self._closing.is_set():
            from db.errors import RecordError

            try:
                question()
            except RecordError as error:
                self.failed.emit("record", str(error))

    def _read(self, limit: int, since_unix_ns: int) -> list[RecordedPart]:
        from db import queries
        from db.models import Part

        return self._select(queries.last_not_passed(limit).where(Part.triggered_unix_ns >= since_unix_ns))

    def _find(self, uid: str, box_px: tuple[int, int]) -> None:
        from db import queries
        from db.models import Part

        for part in self._select(queries.last_not_passed(1).where(Part.uid == uid)):
            self.picture_found.emit(uid, self._load(part, box_px))

    def _select(self, rows: "Select[Any]") -> list[RecordedPart]:
        from db.errors import record_errors
        from db.session import open_read_only

        names = tuple(RecordedPart.__dataclass_fields__)
        database = open_read_only(self.database_path)
        try:
            with record_errors(self.database_path), database.connect() as connection:
                found = connection.execute(rows).mappings().all()
        finally:
            database.close()
        return [
            RecordedPart(**{name: row[name] for name in names} | {"verdict": Verdict(row["verdict"])})
            for row in found
        ]

    def _load(self, part: RecordedPart, box_px: tuple[int, int]) -> Picture:
        from db.archive import Archive
        from db.errors import RecordMissing

        archive = Archive(self._images_dir)
        image_rgb, map_u8 = _NO_PIXELS, _NO_MAP
        try:
            if part.image_path:
                image_rgb = archive.load_image(part.image_path)
            if part.map_path:
                map_u8 = to_map_u8(archive.load_map(part.map_path), part.limit_reject)
        except RecordMissing:
            pass  # no longer kept: the part is shown without its picture, and says so
        return compose(
            image_rgb,
            map_u8,
            box_px,
            part_seq=part.part_seq,
            camera_id=part.camera_id,
            verdict=part.verdict,
            triggered_unix_ns=part.triggered_unix_ns,
        )


def to_map_u8(anomaly_map: NDArray[np.float32], limit_reject: float) -> MapU8:
    """An anomaly map on the published scale: 0 nothing, 128 the limit, 255 twice that, or not finite."""
    if limit_reject <= 0:
        return _NO_MAP
    share = np.nan_to_num(anomaly_map / limit_reject, nan=np.inf, posinf=np.inf)
    levels: MapU8 = np.rint(np.clip(share * LIMIT_U8, 0, 255)).astype(np.uint8)
    return levels
