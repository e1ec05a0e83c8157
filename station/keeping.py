"""What is kept of a part: its row, and its pixels where they are wanted and there is room for them.

Rows come first: a full disk or a slow one sheds pictures, flagged in their rows, never rows.
"""

import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from db.archive import Archive, StoredFiles
from db.errors import DiskFull, RecordError
from db.writer import PartRow, ViewRow
from station.ballast import ROOM, Ballast
from station.sections import LineSection, RecordSection
from station.shifts import ShiftConfig, shift_at
from station.types import Inspection, Verdict

log = logging.getLogger(__name__)

Row = TypeVar("Row", PartRow, ViewRow)

SLOW = "the disk is too slow for the pictures: some are shed, rows are kept"
_LOOK_AGAIN_S = 1.0
_SLOW_S = 10.0  # so long after the last picture that was shed the disk still counts as slow


class Pixels(NamedTuple):
    """What a view of a part wants kept: image, map, and whether the image must stay exactly as it was."""

    camera_id: str
    image_rgb: NDArray[np.uint8]
    anomaly_map: NDArray[np.float32] | None
    lossless: bool


@dataclass(frozen=True, slots=True, eq=False)
class KeptPart:
    """A part on its way to the disk."""

    row: PartRow
    pixels: tuple[Pixels, ...]


def part_uid(run_id: str, part_seq: int) -> str:
    """The name of a part for ever."""
    return f"{run_id}-{part_seq:09d}"


class PartKeeper:
    """Makes rows, chooses pixels and stores them. Any thread may `take`; one alone stores."""

    def __init__(
        self,
        *,
        archive: Archive,
        ballast_path: Path,
        run_id: str,
        line: LineSection,
        shifts: Sequence[ShiftConfig],
        config: RecordSection,
    ) -> None:
        """Nothing is on the disk yet.

        Args:
            archive: of pictures and maps.
            ballast_path: on the record's disk.
            run_id: of this run; part of every uid.
            line: recipe, lot and user for the rows.
            shifts: the plant's.
            config: image policy.
        """
        self._archive = archive
        self._ballast = Ballast(ballast_path, round(config.ballast_mb * 1e6))
        self._restore_ballast_s = 0.0
        self._run_id = run_id
        self._line = line
        self._shifts = shifts
        self._config = config
        self._passed = 0
        self._not_stored = ""
        self._slow_until_s = 0.0
        self._pending_lock = threading.Lock()
        self.pending_images = 0
        """Pictures taken and not stored yet."""
        self.images_shed = 0

    def take(self, inspection: Inspection) -> KeptPart:
        """A decided part's row, with its pixels unless too many wait already. Never blocks."""
        pixels = self._wanted_pixels(inspection)
        shed = False
        if pixels:
            with self._pending_lock:
                shed = self.pending_images >= self._config.max_pending_images
                self.pending_images += 0 if shed else len(pixels)
        if shed:
            self._slow_until_s = time.monotonic() + _SLOW_S
            self.images_shed += len(pixels)
            pixels = ()
        return KeptPart(self._row(inspection, shed), pixels)

    def _wanted_pixels(self, inspection: Inspection) -> tuple[Pixels, ...]:
        passed = inspection.verdict is Verdict.PASS
        if passed:
            self._passed += 1
            every = self._config.pass_image_every
            if not every or self._passed % every:
                return ()
        return tuple(
            Pixels(
                view.trigger.camera_id,
                view.frame.image_rgb,
                view.result.anomaly_map if view.result else None,
                lossless=not passed,
            )
            for view in inspection.views or (inspection,)
            if view.frame is not None
        )

    def _row(self, inspection: Inspection, shed: bool) -> PartRow:
        trigger = inspection.trigger
        return PartRow(
            uid=part_uid(self._run_id, trigger.part_seq),
            run_id=self._run_id,
            part_seq=trigger.part_seq,
            triggered_unix_ns=trigger.triggered_unix_ns,
            shift_key=shift_at(self._shifts, trigger.triggered_unix_ns).key,
            lot=self._line.lot,
            recipe=self._line.recipe,
            user=self._line.user,
            latency_ms=inspection.latency_ms,
            timings_ms=inspection.timings_ms,
            image_shed=shed,
            regions=inspection.regions,
            plc_part_id=trigger.plc_part_id,
            views=[ViewRow(**_judgement(view)) for view in inspection.views],
            **_judgement(inspection),
        )

    # --- the storing thread

    def store(self, part: KeptPart) -> PartRow:
        """Put a part's pixels on the disk, before its row; the row then names the files."""
        files: dict[str, StoredFiles] = {}
        try:
            for pixels in part.pixels:
                if not self.has_room():
                    break
                files[pixels.camera_id] = self._store_view(part.row, pixels)
        except RecordError as error:
            log.error("picture of part %d shed: %s", part.row.part_seq, error)
            if isinstance(error, DiskFull):
                self.give_room_to_rows()
            self._not_stored = f"pictures are shed, rows are kept: {error}"
        else:
            if files:
                self._not_stored = ""
        finally:
            with self._pending_lock:
                self.pending_images -= len(part.pixels)
        shed = len(part.pixels) - len(files)
        self.images_shed += shed
        views = [_naming(files, view) for view in part.row.views]
        return _naming(files, replace(part.row, views=views, image_shed=part.row.image_shed or shed > 0))

    def _store_view(self, row: PartRow, pixels: Pixels) -> StoredFiles:
        """Where a part has several views, each file's name ends in its view's number."""
        numbers = {view.camera_id: f"-{number}" for number, view in enumerate(row.views, 1)}
        name = row.uid + numbers.get(pixels.camera_id, "")
        return self._archive.store(
            name, row.triggered_unix_ns, pixels.image_rgb, pixels.anomaly_map, pixels.lossless
        )

    def trouble(self) -> str:
        """Why pictures are shed; empty when they are kept."""
        if not self.has_room():
            needed = f"{ROOM * self._config.ballast_mb:g} MB"
            return f"disk full: pictures are shed, rows are kept; free some space, {needed} at least"
        return self._not_stored or (SLOW if time.monotonic() < self._slow_until_s else "")

    def has_room(self) -> bool:
        """Whether there is space beyond what rows need; looked at again once a second where there was
        none."""
        if not self._ballast.intact and time.monotonic() >= self._restore_ballast_s:
            self._restore_ballast_s = time.monotonic() + _LOOK_AGAIN_S
            self._ballast.restore()
        return self._ballast.intact

    def give_room_to_rows(self) -> bool:
        """The disk is full: pictures are shed from now on; False when they were already."""
        return self._ballast.give_up()


def _judgement(view: Inspection) -> dict[str, Any]:
    """What a part's row says of its verdict, and of that in each of several views."""
    limits, result = view.limits, view.result
    return {
        "camera_id": view.trigger.camera_id,
        "frame_id": view.frame.frame_id if view.frame else None,
        "verdict": view.verdict,
        "reason": view.reason,
        "score": result.score if result and math.isfinite(result.score) else None,
        "limit_recheck": limits.recheck if limits else 0.0,
        "limit_reject": limits.reject if limits else 0.0,
        "model_id": view.model_id,
    }


def _naming(files: Mapping[str, StoredFiles], row: Row) -> Row:
    """The row with the files of its camera."""
    found = files.get(row.camera_id)
    return replace(row, image_path=found.image_path, map_path=found.map_path) if found else row
