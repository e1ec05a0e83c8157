"""The open record of a line that has to run on: where SQLite can use it no more, it is brought back.

At the start and under a running line alike: the damaged files are put aside, and the youngest whole backup
takes their place, with all rows that can still be read (`db.restore`).
"""

import logging
from collections.abc import Callable, Set
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from db.archive import Archive
from db.backup import back_up
from db.errors import RecordDamaged, RecordError
from db.restore import recover
from db.session import Database, open_database
from db.writer import Writer

log = logging.getLogger(__name__)

_MAX_RECOVERIES = 3  # in one run: a disk that damages the record again and again is not healed by copies


class OpenRecord(NamedTuple):
    """A database and its only writer."""

    database: Database
    writer: Writer


class LastingRecord:
    """Opened when it is needed. One thread, the recording stage, is the only caller."""

    def __init__(
        self,
        path: Path,
        archive: Archive,
        backup_folder: Path,
        *,
        pending: Callable[[], Set[str]],
        between_steps: Callable[[], None],
        on_loss: Callable[[str], None],
        on_recovered: Callable[[str], None],
    ) -> None:
        """Nothing is opened yet.

        Args:
            path: SQLite file.
            archive: its pictures.
            backup_folder: where its backups are.
            pending: says which pictures rows to come will name.
            between_steps: called every few seconds while it is brought back; what it raises ends that.
            on_loss: told, at opening, of rows that were acknowledged once and are gone.
            on_recovered: told that the record was damaged, and what is in its place.
        """
        self._path = path
        self._archive = archive
        self._backup_folder = backup_folder
        self._pending = pending
        self._between_steps = between_steps
        self._on_loss = on_loss
        self._on_recovered = on_recovered
        self._last_view = path.with_name("damaged.db")
        self._open: OpenRecord | None = None
        self._damage: RecordDamaged | None = None
        self._recoveries = 0
        self._owes_run = False  # the run's row is not in what was brought back
        self.run: Callable[[Writer], None] | None = None
        """Writes the row of the run that is under way, which a backup may lack."""

    @property
    def is_given_up(self) -> bool:
        """Whether it has been brought back too often."""
        return self._recoveries >= _MAX_RECOVERIES

    def open(self) -> OpenRecord:
        """The record, opened if it is not open; one that is damaged is brought back first.

        Raises:
            RecordError: it cannot be opened now.
        """
        if self._open is None and self._damage is None:
            try:
                self._open = self._open_as_it_is()
            except RecordDamaged as error:
                self._damage = error
        if self._damage is not None:
            self._recover(self._damage)
            self._damage, self._owes_run = None, True
        if self._open is None:
            self._open = self._open_as_it_is()
        if self._owes_run and self.run:
            self.run(self._open.writer)
        self._owes_run = False
        return self._open

    def put_down(self, damage: RecordDamaged) -> None:
        """The record can be used no more as it is: it is brought back before it is opened again.

        Its connection may still see what the file does not show any more: pages that it holds, or the whole
        of a file that was removed.
        """
        self._damage = damage
        if self._open:
            try:
                back_up(self._open.writer, self._last_view, self._between_steps)
            except RecordError as error:
                log.error("the damaged record is read from its file: %s", error)
        self.close()

    def close(self) -> None:
        """Close what is open."""
        record, self._open = self._open, None
        if record is None:
            return
        try:
            record.writer.close()
        except RecordError as error:
            log.error("the record did not close cleanly: %s", error)
        record.database.close()

    def _open_as_it_is(self) -> OpenRecord:
        database = open_database(self._path)
        try:
            writer = Writer(database)
        except RecordError:
            database.close()
            raise
        self._last_view.unlink(missing_ok=True)
        if database.loss:
            self._on_loss(database.loss)
        return OpenRecord(database, writer)

    def _recover(self, damage: RecordDamaged) -> None:
        log.error("the record is brought back: %s", damage)
        self._recoveries += 1
        done = recover(
            self._path,
            self._backup_folder,
            self._archive,
            self._path.with_name(datetime.now(UTC).strftime("replaced-%Y%m%dT%H%M%S.%fZ")),
            read_from=self._last_view,
            pending=self._pending(),
            between_steps=self._between_steps,
        )
        origin = f"from {done.backup.name}" if done.backup else "without a backup, as there is none"
        kept = f"{done.taken['part']} newer parts were read from the damaged file, kept in {done.aside}"
        self._on_recovered(f"{damage}; brought back {origin}; {kept}")
