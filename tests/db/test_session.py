import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.exc import DBAPIError

import db
from db.chain import read_faults, verify
from db.errors import (
    DiskFull,
    RecordDamaged,
    RecordError,
    RecordLocked,
    RecordMissing,
    RecordNewer,
    RecordOlder,
    RecordReadOnly,
)
from db.models import Base
from db.queries import read_known_files
from db.session import REVISION, Database, open_database, open_read_only
from db.writer import PartRow, Writer

Recording = Callable[[Path], AbstractContextManager[tuple[Database, Writer]]]
MakePart = Callable[..., PartRow]


def execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def python(code: str, *arguments: object, user: int | None = None) -> subprocess.Popen[str]:
    root = Path(db.__file__).parents[1]
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=root,
        user=user,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_migrations_make_the_tables_of_the_models(tmp_path: Path) -> None:
    with closing(open_database(tmp_path / "station.db")) as database, database.connect() as connection:
        context = MigrationContext.configure(connection)
        assert context.get_current_revision() == REVISION
        assert compare_metadata(context, Base.metadata) == []


def test_the_newest_migration_is_the_one_this_program_knows() -> None:
    versions = Path(db.__file__).parent / "migrations" / "versions"
    assert max(path.name[:4] for path in versions.glob("*.py")) == REVISION


def test_settings_that_durability_rests_on(database_path: Path) -> None:
    with closing(open_database(database_path)) as database:
        assert database.engine is not None
        with database.engine.connect() as connection:
            pragmas = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            found = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas]
    assert found == ["wal", 2, 1, 10_000]


def test_readers_cannot_write(database_path: Path) -> None:
    with (
        closing(open_database(database_path)) as database,
        database.connect() as connection,
        pytest.raises(DBAPIError, match="readonly database"),
    ):
        connection.exec_driver_sql("DELETE FROM run")


def test_an_old_record_is_upgraded_verifies_as_it_was_written_and_goes_on(
    old_record: Path, recording: Recording, make_part: MakePart
) -> None:
    with recording(old_record) as (database, writer):
        assert database.loss == ""
        with database.connect() as connection:
            assert read_faults(connection) == []
            known = read_known_files(connection)
            rows = connection.exec_driver_sql("SELECT plc_part_id, views FROM part").all()
        assert rows == [(None, "[]")] * 3
        assert sorted(known) == [f"2026/09/21/14/part-{number}.png" for number in (1, 2, 3)]
        writer.commit([make_part(4), make_part(5, plc_part_id=2**32 - 1)])
    with closing(open_database(old_record)) as database, database.connect() as connection:
        assert database.loss == ""
        assert (verify(connection, "part").rows, verify(connection, "part").fault) == (5, "")


@pytest.mark.parametrize(("column", "value"), [("plc_part_id", "7"), ("views", "'[{}]'"), ("views", "NULL")])
def test_a_later_column_of_an_old_row_cannot_be_changed_unseen(
    old_record: Path, column: str, value: str
) -> None:
    open_database(old_record).close()
    execute(old_record, "DROP TRIGGER part_no_update")
    try:
        execute(old_record, f"UPDATE part SET {column} = {value} WHERE id = 2")
    except sqlite3.IntegrityError:
        return  # refused at once
    with closing(open_database(old_record)) as database, database.connect() as connection:
        assert read_faults(connection) == ["part: row 2 was changed after it was written"]


def test_four_programs_open_a_new_record_at_once(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from db.session import open_database;"
        "database = open_database(Path(sys.argv[1])); print(database.loss or 'ok'); database.close()"
    )
    path = tmp_path / "new" / "station.db"
    programs = [python(code, path) for _ in range(4)]
    assert [program.communicate()[0].strip() for program in programs] == ["ok"] * 4
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(REVISION,)]


def test_opening_again_does_not_import_alembic(database_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from db.session import open_database;"
        "open_database(Path(sys.argv[1])).close(); print('alembic' in sys.modules)"
    )
    assert python(code, database_path).communicate()[0].strip() == "False"


def test_a_newer_database_is_refused_and_left_alone(database_path: Path) -> None:
    execute(database_path, "UPDATE alembic_version SET version_num = '9999'")
    before = database_path.read_bytes()
    for opens in (open_database, open_read_only):
        with pytest.raises(RecordNewer, match=rf"9999.*knows {REVISION}"):
            opens(database_path)
    assert database_path.read_bytes() == before


def test_a_database_that_awaits_its_upgrade_is_not_read(tmp_path: Path) -> None:
    execute(tmp_path / "station.db", "CREATE TABLE unrelated (x)")
    with pytest.raises(RecordOlder, match="start the station once"):
        open_read_only(tmp_path / "station.db")


@pytest.mark.parametrize(
    "content", [b"this is not a database at all\n" * 200, b"SQLite format 3\0" + b"\xff" * 8000]
)
def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "station.db"
    path.write_bytes(content)
    for opens in (open_database, open_read_only):
        with pytest.raises(RecordDamaged, match=r"station\.db: not a usable database"):
            opens(path)
    assert path.read_bytes() == content


def test_reading_where_there_is_no_record(tmp_path: Path) -> None:
    with pytest.raises(RecordMissing, match="no record here"):
        open_read_only(tmp_path / "absent" / "station.db")
    assert not (tmp_path / "absent").exists()


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(RecordError, match="data"):
        open_database(tmp_path / "data" / "station.db")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user without write access")
def test_a_read_only_folder(database_path: Path) -> None:
    for folder in database_path.parents:
        if "pytest-of-" in str(folder):
            folder.chmod(0o755)
    code = (
        "import os, sys; from pathlib import Path; from db.session import open_database;"
        "from db.errors import RecordReadOnly\n"
        "os.setuid(65534)\n"
        "for path in sys.argv[1:]:\n"
        "    try: open_database(Path(path))\n"
        "    except RecordReadOnly as error: print(error)\n"
    )
    new = database_path.parent / "sub" / "station.db"
    output = python(code, database_path, new).communicate()[0].splitlines()
    assert [line.split(": ")[0] for line in output] == [str(database_path), str(new)]
    assert all("write access" in line for line in output)
    assert not new.parent.exists()


def test_a_second_writer_is_refused(database_path: Path) -> None:
    with (
        closing(open_database(database_path)) as database,
        closing(Writer(database)),
        pytest.raises(RecordLocked, match="another station"),
    ):
        Writer(database)
    with closing(open_database(database_path)) as database, closing(Writer(database)):
        pass


def test_a_reader_gets_no_writer(database_path: Path) -> None:
    with closing(open_read_only(database_path)) as database, pytest.raises(RecordError, match="reading only"):
        Writer(database)


def test_the_tree_is_one_tree() -> None:
    for kind in (
        RecordMissing,
        RecordReadOnly,
        RecordLocked,
        RecordNewer,
        RecordOlder,
        RecordDamaged,
        DiskFull,
    ):
        assert issubclass(kind, RecordError)
