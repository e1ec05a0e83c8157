"""Copy the record while it is being written.

The copy is made by the writing connection itself: a backup by another connection starts again from the
beginning at every commit, and never ends under load. Between steps the writer goes on committing; what it
commits meanwhile is part of the copy.
"""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from db.errors import record_errors
from db.session import sqlite_connection
from db.writer import Writer

_PAGES_PER_STEP = 256  # 1 MiB: a few milliseconds


def back_up(writer: Writer, target: Path, between_steps: Callable[[], None] = lambda: None) -> None:
    """Write a complete copy of the record to `target`; it appears whole or not at all, and replaces an older
    one.

    To restore: stop the station, move the old `station.db*` files away, put the copy in their place.

    Args:
        writer: between commits, on its thread.
        target: on another disk, best; its folder is created.
        between_steps: called after each MiB, e.g. to commit what has come in; must not take the backup's
            thread away.

    Raises:
        DiskFull, RecordReadOnly: no copy was made; an older one is untouched.
    """
    temporary = target.with_name(target.name + ".tmp")
    with record_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(temporary)) as copy:
                sqlite_connection(writer.connection).backup(
                    copy, pages=_PAGES_PER_STEP, progress=lambda *_: between_steps(), sleep=0
                )
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
