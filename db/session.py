"""Opening the record.

WAL with synchronous=FULL: an acknowledged row survives a power cut. One connection writes and checkpoints
(`db.writer`); everybody else reads through connections that cannot write, as SQLite up to 3.51.2 can lose a
WAL reset between two writers. Every transaction of the writer is BEGIN IMMEDIATE, so that it waits for the
lock at its start and never fails in its middle.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.orm import Session

from db.chain import canonical_json
from db.errors import RecordDamaged, RecordMissing, RecordNewer, RecordOlder, record_errors
from db.mark import check_mark, mark_path

REVISION = "0002"  # the newest migration; `tests/db/test_session.py` holds it to the files
BUSY_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Database:
    """An open record.

    Attributes:
        path: of the SQLite file.
        engine: the writer's own; None when opened for reading only.
        reading: connections that cannot write; safe from any thread.
        loss: empty, or one line: rows were acknowledged once and are gone, or the high-water mark is.
    """

    path: Path
    engine: Engine | None
    reading: Engine
    loss: str = ""

    def connect(self) -> Connection:
        """A reading connection; use it in a `with`."""
        with record_errors(self.path):
            return self.reading.connect()

    def session(self) -> Session:
        """A reading ORM session; use it in a `with`."""
        return Session(self.reading)

    def close(self) -> None:
        """Close every connection. Readers first, so that the writer's checkpoint is the last word."""
        self.reading.dispose()
        if self.engine is not None:
            self.engine.dispose()


def open_database(path: Path) -> Database:
    """Open the record for the one program that writes it: create its folder, create or upgrade its tables.

    Safe when several programs start at once: one migrates, the others wait.

    Raises:
        RecordDamaged: SQLite does not find every page in order, or the database is gone and its mark is not.
        RecordReadOnly, RecordLocked, RecordNewer, DiskFull: see `db.errors`.
    """
    path = path.absolute()
    if not path.exists() and mark_path(path).exists():
        raise RecordDamaged(f"{path}: the database is gone; restore the last backup, or remove its .mark too")
    with record_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
            _use_wal(connection)
            refuse_damaged(path, connection)
            revision = read_revision(connection)
        refuse_newer(path, revision)
        engine = _writing_engine(path)
        try:
            if revision != REVISION:
                _upgrade(engine, path)
            reading = _reading_engine(path)
            with reading.connect() as connection_:
                loss = check_mark(path, connection_)
        except BaseException:
            engine.dispose()
            raise
    return Database(path, engine, reading, loss)


def open_read_only(path: Path) -> Database:
    """Open the record beside a running station, or after it. Never creates, upgrades or writes.

    Raises:
        RecordMissing, RecordOlder, RecordNewer, RecordDamaged: see `db.errors`.
    """
    path = path.absolute()
    if not path.is_file():
        raise RecordMissing(
            f"{path}: no record here; run the station once, or correct data_dir in the configuration"
        )
    with record_errors(path):
        with closing(
            sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)
        ) as connection:
            revision = read_revision(connection)
        refuse_newer(path, revision)
        if revision != REVISION:
            raise RecordOlder(
                f"{path}: the record is at version {revision or 'none'}, this program reads {REVISION}; "
                "start the station once to upgrade it"
            )
        return Database(path, None, _reading_engine(path))


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL. SQLite does not wait for the lock this needs, so starts that meet here retry."""
    deadline = monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                return
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > deadline:
                raise
            sleep(0.01)


def refuse_damaged(path: Path, connection: sqlite3.Connection) -> None:
    """A database is not used when SQLite does not find every page of it in order. 100 MB take half a second.

    Raises:
        RecordDamaged: it does not.
    """
    (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise RecordDamaged(f"{path}: damaged ({' '.join(found.split())}); restore the last backup there")


def read_revision(connection: sqlite3.Connection) -> str:
    """The schema's version; empty for a new database."""
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone() if known else None
    return str(row[0]) if row else ""


def refuse_newer(path: Path, revision: str) -> None:
    """A record that a newer program wrote is not touched."""
    if revision > REVISION:
        raise RecordNewer(
            f"{path}: the record is at version {revision}, this program knows {REVISION}; "
            "install the program that wrote it, or a newer one"
        )


def _upgrade(engine: Engine, path: Path) -> None:
    """Bring the schema to `REVISION` in one transaction. Whoever comes second finds it done."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        refuse_newer(path, read_revision(sqlite_connection(connection)))
        command.upgrade(config, "head")


def sqlite_connection(connection: Connection) -> sqlite3.Connection:
    """The driver's connection below SQLAlchemy's."""
    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    return raw


def _writing_engine(path: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}", json_serializer=canonical_json, connect_args={"timeout": BUSY_TIMEOUT_S}
    )

    _begin_with(engine, "BEGIN IMMEDIATE")

    @event.listens_for(engine, "connect")
    def configure(raw: sqlite3.Connection, _record: object) -> None:
        raw.execute("PRAGMA synchronous = FULL")
        raw.execute("PRAGMA foreign_keys = ON")

    return engine


def _reading_engine(path: Path) -> Engine:
    """Connections that cannot write; all that one transaction reads is of one moment."""
    engine = create_engine(
        f"sqlite:///{path.as_uri()}?mode=ro&uri=true", connect_args={"timeout": BUSY_TIMEOUT_S}
    )
    _begin_with(engine, "BEGIN")
    return engine


def _begin_with(engine: Engine, statement: str) -> None:
    """Begin transactions by this statement, instead of when sqlite3 thinks one is due."""

    @event.listens_for(engine, "connect")
    def leave_it_to_us(raw: sqlite3.Connection, _record: object) -> None:
        raw.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)
