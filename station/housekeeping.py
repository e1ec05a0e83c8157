"""The housekeeping stage: lets go of old pictures and rows, and backs the record up.

No part needs it: it works behind everything else, and what fails becomes an alarm, never a verdict. Rows and
the copy of the record are the recording stage's work, asked for here and done between its commits.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TypeVar

from db.archive import Archive
from db.backup import backup_name, backup_unix_s, backups, check_pages, file_away
from db.errors import RecordDamaged, RecordError
from db.retention import ImageRetention, expire_images
from station.config import StationConfig
from station.recording import RecordingStage
from station.stage import LONGEST_WAIT_S, Stage

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_LOOK_S = 60.0  # a line that has just started has other things to do
_PAUSE_S = 0.02
_NS_PER_DAY = 86_400 * 10**9
_SPARE_BYTES = 100_000_000  # left free on the record's disk beside a copy


class _Stopped(Exception):
    """The station is stopping: what is under way is given up."""


class HousekeepingStage(Stage):
    """One thread, idle most of the time."""

    vital = False
    patience_s = 600.0  # a network drive may take its time

    def __init__(
        self,
        config: StationConfig,
        recording: RecordingStage,
        on_chores: Callable[[Mapping[str, str]], None],
        on_failure: Callable[[Stage], None],
    ) -> None:
        """Set up; `start()` begins, the first look comes a minute later at most.

        Args:
            config: what is kept, where, and how long.
            recording: does what only the record's writer may.
            on_chores: told, after each round, chore -> what went wrong; empty = nothing.
            on_failure: told when this stage dies.
        """
        super().__init__("housekeeping", on_failure)
        self._config = config.housekeeping
        self._database_path = config.database_path
        self._ballast_bytes = round(config.record.ballast_mb * 1e6)
        self._backup_folder = config.backup_folder
        self._archive = Archive(config.images_dir)
        self._recording = recording
        self._on_chores = on_chores
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Give up what is under way, and end."""
        self._stopping.set()

    def work(self) -> None:
        """Until stopped: one round of chores, then a rest."""
        rest_s = self._config.every_minutes * 60
        try:
            self._rest(min(rest_s, _FIRST_LOOK_S))
            while True:
                self._on_chores(self._round())
                self._rest(rest_s)
        except _Stopped:
            pass

    def _round(self) -> dict[str, str]:
        problems = {}
        chores = {"old pictures": self._expire_images, "old rows": self._expire_rows, "backup": self._back_up}
        for name, chore in chores.items():
            problems[name] = ""
            try:
                chore()
            except (RecordError, OSError) as error:
                log.error("%s: %s", name, error)
                problems[name] = str(error)
        return problems

    def _expire_images(self) -> None:
        keep = ImageRetention(
            pass_days=self._config.pass_image_days,
            other_days=self._config.other_image_days,
            max_bytes=round(self._config.max_images_gb * 1e9),
        )
        if removed := expire_images(self._archive, keep, time.time_ns(), self._pause):
            log.info("removed %d pictures and maps that need no longer be kept", removed)

    def _expire_rows(self) -> None:
        if not self._config.row_days:
            return
        before_unix_ns = time.time_ns() - round(self._config.row_days * _NS_PER_DAY)
        for table in ("part", "event"):
            while removed := self._wait(self._recording.expire_rows(table, before_unix_ns)):
                log.info("removed %d rows of %ss that need no longer be kept", removed, table)
                self._pause()

    def _back_up(self) -> None:
        if not self._backup_is_due():
            return
        copy = self._database_path.with_name("backup-under-way.db")
        try:
            self._check_space()
            self._wait(self._recording.back_up(copy))
            try:
                check_pages(copy, self._go_on)
            except RecordDamaged:
                self._wait(self._recording.check())  # if the record itself is damaged, it is brought back
                raise
            name = backup_name(time.time())
            kept = file_away(copy, self._backup_folder, name, self._config.backups_kept, self._go_on)
        finally:
            copy.unlink(missing_ok=True)
        log.info("backed up to %s", kept)

    def _backup_is_due(self) -> bool:
        if not self._config.backup_hours:
            return False
        ages_s = [time.time() - backup_unix_s(backup) for backup in backups(self._backup_folder)]
        # One from the future was made before the clock was set back: it says nothing.
        return not any(0 <= age_s < self._config.backup_hours * 3600 for age_s in ages_s)

    def _check_space(self) -> None:
        folder = self._database_path.parent
        files = (self._database_path, self._database_path.with_name(self._database_path.name + "-wal"))
        needed = sum(path.stat().st_size for path in files if path.exists())
        needed += max(_SPARE_BYTES, 2 * self._ballast_bytes)
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise RecordError(
                f"{folder}: a backup needs {needed / 1e6:.0f} MB free here while it is made, "
                f"{free / 1e6:.0f} MB are; free some"
            )

    # --- never in the way

    def _rest(self, seconds: float) -> None:
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            self._go_on()
            self._stopping.wait(min(left_s, LONGEST_WAIT_S))
        self._go_on()

    def _pause(self) -> None:
        """Leave the processor to the line."""
        self._go_on()
        self._stopping.wait(_PAUSE_S)

    def _go_on(self) -> None:
        self.beat()
        if self._stopping.is_set():
            raise _Stopped

    def _wait(self, asked: "Future[T]") -> T:
        """What the recording stage answers.

        Raises:
            RecordError: it could not.
        """
        while not asked.done():
            if not self._recording.is_alive():
                raise _Stopped
            self._pause()
        return asked.result()
