"""What is kept of a part: its row, and its pixels where they are wanted and there is room for them.

Rows come first: a full disk or a slow one sheds pictures, flagged in their rows, never rows.
"""

import logging
import math
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from db.archive import Archive
from db.errors import DiskFull, RecordError
from db.writer import PartRow
from station.ballast import Ballast
from station.sections import LineSection, RecordSection
from station.shifts import ShiftConfig, shift_at
from station.types import Inspection, Verdict

log = logging.getLogger(__name__)

SLOW = "the disk is too slow for the pictures: some are shed, rows are kept"
_LOOK_AGAIN_S = 1.0
_SLOW_S = 10.0  # so long after the last picture that was shed the disk still counts as slow


class Pixels(NamedTuple):
    """What a part wants kept: image, map, and whether the image must stay exactly as it was."""

    image_rgb: NDArray[np.uint8]
    anomaly_map: NDArray[np.float32] | None
    lossless: bool


@dataclass(frozen=True, slots=True, eq=False)
class KeptPart:
    """A part on its way to the disk."""

    row: PartRow
    pixels: Pixels | None


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
        if pixels is not None:
            with self._pending_lock:
                shed = self.pending_images >= self._config.max_pending_images
                self.pending_images += not shed
        if shed:
            self._slow_until_s = time.monotonic() + _SLOW_S
            self.images_shed += 1
            pixels = None
        return KeptPart(self._row(inspection, shed), pixels)

    def _wanted_pixels(self, inspection: Inspection) -> Pixels | None:
        if inspection.frame is None:
            return None
        passed = inspection.verdict is Verdict.PASS
        if passed:
            self._passed += 1
            every = self._config.pass_image_every
            if not every or self._passed % every:
                return None
        anomaly_map = inspection.result.anomaly_map if inspection.result else None
        return Pixels(inspection.frame.image_rgb, anomaly_map, lossless=not passed)

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

    # --- the storing thread

    def store(self, part: KeptPart) -> PartRow:
        """Put a part's pixels on the disk, before its row; the row then names the files."""
        if part.pixels is None:
            return part.row
        image_rgb, anomaly_map, lossless = part.pixels
        try:
            if not self.has_room():
                self.images_shed += 1
                return replace(part.row, image_shed=True)
            files = self._archive.store(
                part.row.uid, part.row.triggered_unix_ns, image_rgb, anomaly_map, lossless
            )
        except RecordError as error:
            log.error("picture of part %d shed: %s", part.row.part_seq, error)
            if isinstance(error, DiskFull):
                self.give_room_to_rows()
            self._not_stored = f"pictures are shed, rows are kept: {error}"
            self.images_shed += 1
            return replace(part.row, image_shed=True)
        finally:
            with self._pending_lock:
                self.pending_images -= 1
        self._not_stored = ""
        return replace(part.row, image_path=files.image_path, map_path=files.map_path)

    def trouble(self) -> str:
        """Why pictures are shed; empty when they are kept."""
        if not self.has_room():
            return "disk full: pictures are shed, rows are kept; free some space"
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
